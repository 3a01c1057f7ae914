"""What a model is made of."""

import dataclasses

from terraformer.config.base import Checked, expect


@dataclasses.dataclass(frozen=True)
class DenseFFConfig(Checked):
  """Feed-forward block of `d_ff` ReLU units, all of them read for every token."""

  d_ff: int = 2048

  def check(self):
    self._at_least(1, 'd_ff')


@dataclasses.dataclass(frozen=True)
class SparseFFConfig(Checked):
  """Feed-forward block of which one unit in `block_size` is read for a token (paper, section 3.1).

  Attributes:
    d_ff: units in all; a multiple of `block_size`.
    block_size: units a block, N in the paper; the controller picks one of them.
    rank: inner width of the controller; the paper's 800M model has d_ff / block_size.
    temperature: scale of the Gumbel noise that is added to the controller's log-softmax in training.
    hard_probability: share of the training calls that use the straight-through one-hot choice, not the soft mask.
    multiply_by_controller_output: whether the chosen units are also scaled by the controller's softmax.
  """

  d_ff: int = 2048
  block_size: int = 64
  rank: int = 32
  temperature: float = 0.1
  hard_probability: float = 0.3
  multiply_by_controller_output: bool = False

  def check(self):
    self._at_least(1, 'd_ff', 'block_size', 'rank')
    self._at_least(0, 'temperature')
    self._probability('hard_probability')
    expect(
      self.d_ff % self.block_size == 0,
      f'SparseFFConfig.d_ff: expected a multiple of block_size ({self.block_size}), found {self.d_ff}',
    )

  @property
  def n_blocks(self) -> int:
    return self.d_ff // self.block_size


@dataclasses.dataclass(frozen=True)
class DenseProjectionConfig(Checked):
  """Queries, keys, values and the attention's output by four dense matrices (d_model x d_model)."""

  bias: bool = True


@dataclasses.dataclass(frozen=True)
class SparseProjectionConfig(Checked):
  """Queries, keys and values by one multiplicative dense layer and a small convolution each (paper, section 3.2).

  Attributes:
    n_modules: S in the paper; must divide d_model.
    length_kernel: positions that the convolutions see, the current one included; they look to the left only.
    module_kernel: neighbouring modules that the convolutions of queries and keys see; odd. That of values sees one.
  """

  n_modules: int = 16
  length_kernel: int = 3
  module_kernel: int = 3

  def check(self):
    self._at_least(1, 'n_modules', 'length_kernel', 'module_kernel')
    expect(
      self.module_kernel % 2 == 1, f'SparseProjectionConfig.module_kernel: expected odd, found {self.module_kernel}'
    )


@dataclasses.dataclass(frozen=True)
class SRUConfig(Checked):
  """Simple recurrent unit of a small width beside the feed-forward block (paper, section 4.3)."""

  width: int = 32

  def check(self):
    self._at_least(1, 'width')


@dataclasses.dataclass(frozen=True)
class DenseOutputConfig(Checked):
  """Output layer of one dense matrix (d_model x vocabulary)."""


@dataclasses.dataclass(frozen=True)
class SparseOutputConfig(Checked):
  """Output layer by a multiplicative dense layer of `n_modules` modules (paper's sparse loss, section 3.3)."""

  n_modules: int = 4

  def check(self):
    self._at_least(1, 'n_modules')


@dataclasses.dataclass(frozen=True)
class BlockConfig(Checked):
  """What a layer of a stack is made of.

  Attributes:
    d_model: width of the residual streams.
    n_heads: attention heads; must divide d_model.
    projection: dense or sparse queries, keys and values.
    feed_forward: dense or sparse feed-forward block.
    recurrence: the SRU branch beside the feed-forward block, or None.
    dropout: probability, below 1, that an entry of a branch's output is dropped in training.
  """

  d_model: int = 256
  n_heads: int = 4
  projection: DenseProjectionConfig | SparseProjectionConfig = SparseProjectionConfig()
  feed_forward: DenseFFConfig | SparseFFConfig = SparseFFConfig()
  recurrence: SRUConfig | None = SRUConfig()
  dropout: float = 0.1

  def check(self):
    self._at_least(1, 'd_model', 'n_heads')
    self._probability('dropout')
    expect(self.dropout < 1, f'BlockConfig.dropout: expected less than 1, found {self.dropout}')
    _divides('BlockConfig.d_model', self.d_model, 'n_heads', self.n_heads)
    if isinstance(self.projection, SparseProjectionConfig):
      _divides('BlockConfig.d_model', self.d_model, 'SparseProjectionConfig.n_modules', self.projection.n_modules)


def _divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
  expect(value % divisor == 0, f'{name}: expected a multiple of {divisor_name} ({divisor}), found {value}')


@dataclasses.dataclass(frozen=True)
class TerraformerConfig(Checked):
  """Terraformer (paper, section 4): an encoder whose output is the prefix of one causal decoder stack.

  Attributes:
    vocab_size: rows of the embedding and columns of the output layer; at least the vocabulary's size.
    max_length: positions that the encoder and the decoder each have.
    n_encoder_layers, n_decoder_layers: layers of the two stacks.
    n_decoder_attentions: attention sub-layers in one decoder layer.
    keep_activations: whether training stores what the backward pass needs instead of recomputing it from the output of
      each reversible stack; the function is the same, the memory grows with depth.
    unroll: layers in one turn of the compiled loop over a stack; as many as there are layers makes no loop, which on a
      CPU is several times faster (XLA runs a convolution inside a loop on one core) and takes longer to compile.
    encoder, decoder: what a layer of either stack is made of; of one d_model.
    output: dense or sparse output layer.
  """

  vocab_size: int = 8192
  max_length: int = 1024
  n_encoder_layers: int = 2
  n_decoder_layers: int = 2
  n_decoder_attentions: int = 2
  keep_activations: bool = False
  unroll: int = 1
  encoder: BlockConfig = BlockConfig()
  decoder: BlockConfig = BlockConfig()
  output: DenseOutputConfig | SparseOutputConfig = SparseOutputConfig()

  def check(self):
    self._at_least(2, 'vocab_size')
    self._at_least(1, 'max_length', 'n_encoder_layers', 'n_decoder_layers', 'n_decoder_attentions', 'unroll')
    expect(
      self.encoder.d_model == self.decoder.d_model,
      f'TerraformerConfig.decoder: expected the d_model of the encoder ({self.encoder.d_model}), '
      f'found {self.decoder.d_model}',
    )
    if isinstance(self.output, SparseOutputConfig):
      _divides('TerraformerConfig.vocab_size', self.vocab_size, 'SparseOutputConfig.n_modules', self.output.n_modules)

  @property
  def d_model(self) -> int:
    return self.encoder.d_model
