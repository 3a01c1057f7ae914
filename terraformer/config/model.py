"""Configurations of blocks, and of the three models that stack them."""

import dataclasses
from typing import ClassVar, Self

from terraformer.config.attention import (
  AttentionConfig,
  FullAttentionConfig,
  ProjectionConfig,
  SparseProjectionConfig,
)
from terraformer.config.base import Checked, Family, divides, expect
from terraformer.config.layers import (
  FeedForwardConfig,
  LayerNormConfig,
  NormConfig,
  OutputConfig,
  ResidualConfig,
  ReversibleResidualConfig,
  SparseFFConfig,
  SparseOutputConfig,
  SRUConfig,
)
from terraformer.config.positions import PositionsConfig, TablePositionsConfig
from terraformer.config.words import flag

# Decoding and the cost table compile programs in which layers are unrolled.
_MOST_LAYERS = 4096
# Half of the int32 range, since the decoder of a Terraformer also counts its prefix.
_MOST_POSITIONS = 2**30


@dataclasses.dataclass(frozen=True)
class BlockConfig(Checked):
  """The parts of a layer.

  Attributes:
    d_model: width of the residual streams.
    n_heads: number of attention heads; must divide d_model.
    projection: how queries, keys and values are made.
    feed_forward: the feed-forward block.
    recurrence: the SRU branch parallel to the feed-forward block, or None.
    dropout: probability, below 1, that an entry of a branch's output is dropped in training.
    attention: which keys a query sees.
    norm: normalization before each branch.
    ff_chunk: tokens that the feed-forward block processes at a time, also in training; 0 for all. A sparse block
      chooses between the hard and the soft mask once per chunk.
  """

  d_model: int = 256
  n_heads: int = 4
  projection: ProjectionConfig = SparseProjectionConfig()
  feed_forward: FeedForwardConfig = SparseFFConfig()
  recurrence: SRUConfig | None = SRUConfig()
  dropout: float = 0.1
  attention: AttentionConfig = FullAttentionConfig()
  norm: NormConfig = LayerNormConfig()
  ff_chunk: int = 0

  def check(self):
    self._sizes('d_model', 'n_heads')
    self._at_least(0, 'ff_chunk')
    self._dropout('dropout')
    divides('BlockConfig.d_model', self.d_model, 'n_heads', self.n_heads)
    self.projection.check_block(self.d_model, self.n_heads)
    self.attention.check_block(self.projection)


@dataclasses.dataclass(frozen=True)
class ModelConfig(Family):
  """The settings that all models have.

  Attributes:
    vocab_size: number of rows of the embedding and columns of the output layer; at least the vocabulary's size.
    max_length: number of positions of a sequence; encoder and decoder each have this many.
    positions: position encoding.
    residual: one residual stream or two.
    output: the output layer.
    output_norm: normalization before the output layer, and of merged encoder streams; None for that of the blocks.
    loss_chunk: target positions whose logits are computed at a time, in training and evaluation; 0 for all.
    unroll: layers per turn of the compiled loop over a stack. The number of layers removes the loop, which is several
      times faster on a CPU (XLA runs a convolution inside a loop on one core) but takes longer to compile.
    bfloat16: whether the layers compute in bfloat16; parameters, residual streams and softmax are always float32.
  """

  vocab_size: int = 8192
  max_length: int = 1024
  _: dataclasses.KW_ONLY
  positions: PositionsConfig = TablePositionsConfig()
  residual: ResidualConfig = ReversibleResidualConfig()
  output: OutputConfig = SparseOutputConfig()
  output_norm: NormConfig | None = None
  loss_chunk: int = 0
  unroll: int = 1
  bfloat16: bool = False

  needs_source: ClassVar[bool] = True  # whether every example needs inputs
  cross_attends: ClassVar[bool] = False  # whether decoder layers attend to the encoder's output

  def check(self):
    name = type(self).__name__
    self._at_least(2, 'vocab_size')
    self._sizes('vocab_size')
    self._between(1, _MOST_POSITIONS, 'max_length')
    self._at_least(1, 'unroll')
    self._at_least(0, 'loss_chunk')
    self.output.check_model(name, self.vocab_size)
    self.positions.check_model(name, self.d_model)
    most = self.positions.n_positions(self.max_length)
    expect(
      self.max_length <= most,
      f'{name}.max_length: expected at most the {most} positions of {type(self.positions).__name__}, '
      f'found {self.max_length}',
    )

  @property
  def blocks(self) -> dict[str, BlockConfig]:
    """The stacks by name."""
    raise NotImplementedError

  def positions_for(self, inputs_length: int, targets_length: int) -> int:
    """Returns the minimum `max_length` for examples of these lengths."""
    return max(inputs_length, targets_length)

  def attended_lengths(self, inputs_length: int, targets_length: int) -> dict[str, int]:
    """Returns the number of positions that each stack attends to in examples of these lengths."""
    return dict.fromkeys(self.blocks, inputs_length + targets_length)

  def room_behind(self, inputs_length: int) -> int:
    """Returns the maximum number of target tokens after a source of this length."""
    return self.max_length

  def check_context(self, context: int) -> None:
    """Raises UserError if the model has fewer positions than `context`."""
    most = self.positions.n_positions(self.max_length)
    expect(context <= most, f"--context: expected at most the model's {most} positions, found {context}")

  @property
  def n_sublayers(self) -> int:
    """Number of attention sublayers in all layers; each has parameters."""
    raise NotImplementedError

  @property
  def decoder_shape(self) -> tuple[int, int]:
    """Number of decoder layers, and of self-attention sublayers in each."""
    raise NotImplementedError

  def with_layers(self, n_encoder: int, n_decoder: int) -> Self:
    """Returns the same model with other numbers of layers."""
    raise NotImplementedError

  @property
  def d_model(self) -> int:
    """Width of the residual streams."""
    return next(iter(self.blocks.values())).d_model


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig(ModelConfig):
  """A decoder that predicts every token from the tokens before it; a source is the beginning of the sequence.

  Attributes:
    n_layers: number of layers.
    n_attentions: number of attention sublayers per layer.
    decoder: the parts of a layer.
  """

  made_by: ClassVar = 'terraformer.models.language_model:LanguageModel'

  n_layers: int = 2
  n_attentions: int = 1
  decoder: BlockConfig = BlockConfig()

  needs_source: ClassVar[bool] = False

  def check(self):
    super().check()
    self._between(1, _MOST_LAYERS, 'n_layers', 'n_attentions')

  def positions_for(self, inputs_length: int, targets_length: int) -> int:
    """Returns the sum, since the targets follow the inputs."""
    return inputs_length + targets_length

  def room_behind(self, inputs_length: int) -> int:
    """Returns the number of positions that the inputs leave."""
    return max(0, self.max_length - inputs_length)

  @property
  def blocks(self) -> dict[str, BlockConfig]:
    return {'decoder': self.decoder}

  @property
  def n_sublayers(self) -> int:
    return self.n_layers * self.n_attentions

  @property
  def decoder_shape(self) -> tuple[int, int]:
    return self.n_layers, self.n_attentions

  def with_layers(self, n_encoder: int, n_decoder: int) -> Self:
    """Returns the model with `n_decoder` layers; it has no encoder."""
    return dataclasses.replace(self, n_layers=n_decoder)


@dataclasses.dataclass(frozen=True)
class _SequenceToSequenceConfig(ModelConfig):
  """An encoder and a decoder.

  Attributes:
    n_encoder_layers, n_decoder_layers: numbers of layers of the two stacks.
    n_decoder_attentions: number of self-attention sublayers per decoder layer.
    encoder, decoder: the parts of a layer of each stack; both have the same d_model.
  """

  n_encoder_layers: int = 2
  n_decoder_layers: int = 2
  n_decoder_attentions: int = 1
  encoder: BlockConfig = BlockConfig()
  decoder: BlockConfig = BlockConfig()

  def check(self):
    expect(
      self.encoder.d_model == self.decoder.d_model,
      f"{type(self).__name__}.decoder: expected the encoder's d_model ({self.encoder.d_model}), "
      f'found {self.decoder.d_model}',
    )
    super().check()
    self._between(1, _MOST_LAYERS, 'n_encoder_layers', 'n_decoder_layers', 'n_decoder_attentions')

  @property
  def blocks(self) -> dict[str, BlockConfig]:
    return {'encoder': self.encoder, 'decoder': self.decoder}

  @property
  def n_sublayers(self) -> int:
    return self.n_encoder_layers + self.n_decoder_layers * self.n_decoder_attentions

  @property
  def decoder_shape(self) -> tuple[int, int]:
    return self.n_decoder_layers, self.n_decoder_attentions

  def with_layers(self, n_encoder: int, n_decoder: int) -> Self:
    return dataclasses.replace(self, n_encoder_layers=n_encoder, n_decoder_layers=n_decoder)


@dataclasses.dataclass(frozen=True)
class EncoderDecoderConfig(_SequenceToSequenceConfig):
  """A Transformer with an encoder and a decoder that attends to it (the paper's Scaling Transformer, section 3)."""

  made_by: ClassVar = 'terraformer.models.encoder_decoder:EncoderDecoder'

  cross_attends: ClassVar[bool] = True

  def attended_lengths(self, inputs_length: int, targets_length: int) -> dict[str, int]:
    return {'encoder': inputs_length, 'decoder': targets_length}


@dataclasses.dataclass(frozen=True)
class TerraformerConfig(_SequenceToSequenceConfig):
  """Terraformer (paper, section 4): an encoder whose output is the prefix of one causal decoder stack.

  Attributes:
    merge_encoder: whether the encoder's streams are averaged and pass through a dense layer and a normalization, and
      both streams of the prefix start from the result (the authors' `reversible_encoder=False`); otherwise each
      continues unchanged.
    exchange_encoder_streams: whether the two streams change places after each encoder layer (the authors'
      `use_two_swaps_per_encoder_block=False`).
  """

  made_by: ClassVar = 'terraformer.models.terraformer:Terraformer'

  n_decoder_attentions: int = 2
  merge_encoder: bool = False
  exchange_encoder_streams: bool = False

  def attended_lengths(self, inputs_length: int, targets_length: int) -> dict[str, int]:
    return {'encoder': inputs_length, 'decoder': inputs_length + targets_length}

  def check(self):
    super().check()
    expect(
      self.residual.n_streams == 2 or not self.exchange_encoder_streams,
      'TerraformerConfig.exchange_encoder_streams: a model with one residual stream has no streams to exchange; '
      f'leave it out, or use {flag("TerraformerConfig.residual", "@config.ReversibleResidualConfig()")}',
    )
