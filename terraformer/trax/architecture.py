"""The model that a `config.gin` of trax describes, as a configuration of this library."""

import dataclasses

from terraformer.config import (
  AxialPositionsConfig,
  BlockConfig,
  DenseFFConfig,
  DenseOutputConfig,
  FeedForwardConfig,
  FixedBasePositionsConfig,
  LayerNormConfig,
  LowRankOutputConfig,
  NormConfig,
  OutputConfig,
  PositionsConfig,
  RMSNormConfig,
  SparseFFConfig,
  SparseOutputConfig,
  SRUConfig,
  TablePositionsConfig,
  TerraformerConfig,
  UserError,
)
from terraformer.trax.attention import Attention, Sizes, read_attention
from terraformer.trax.gin_values import GinValues, Reference
from terraformer.trax.section import Section

# The model was renamed while it was developed.
_NAMES = ('ConfigurableTerraformer', 'Reformer2')
_FIELDS = {
  'attention_chunk_size',
  'center_layernorm',
  'd_attention_key',
  'd_attention_value',
  'd_ff',
  'd_model',
  'double_after_layer',
  'dropout',
  'encoder_attention_type',
  'encoder_decoder_attention_type',
  'ff_activation',
  'ff_chunk_size',
  'ff_dropout',
  'ff_sparsity',
  'ff_use_sru',
  'forget_dense',
  'half_before_layer',
  'input_vocab_size',
  'loss_d_lowrank',
  'loss_sparsity',
  'loss_sparsity_prob',
  'loss_sparsity_type',
  'max_len',
  'mode',
  'n_decoder_attention_layers',
  'n_decoder_layers',
  'n_encoder_layers',
  'n_heads',
  'n_layers_forget',
  'output_vocab_size',
  'pos_axial_shape',
  'pos_d_axial_embs',
  'pos_max_offset_to_add',
  'pos_start_from_zero_prob',
  'pos_type',
  'reversible_encoder',
  'use_bfloat16',
  'use_two_swaps_per_encoder_block',
}
_SRU_WIDTH = 32  # where the number of layers alone is given


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A model of trax.

  Attributes:
    model: its configuration here; the number of positions of a table is that of the file, whatever it says.
    attention: of each stack, by the stack's name.
    vocab_size: rows of the embedding; None if the file does not say.
    rank: of the tables of positions; None if the file does not say, which need not mean that it is full.
  """

  model: TerraformerConfig
  attention: dict[str, Attention]
  vocab_size: int | None
  rank: int | None = None


def read_architecture(gin: GinValues) -> Architecture:
  """Returns the model that a file describes.

  A field that the file does not set has trax's default.

  Raises:
    UserError: if the file describes no Terraformer, or one that this library cannot express; names the field.
  """
  section = _section(gin)
  section.require_known(_FIELDS)
  for field in ('half_before_layer', 'double_after_layer', 'loss_sparsity_prob', 'output_vocab_size'):
    section.require(field, None, None)
  section.require('n_layers_forget', 0, 0)
  d_model, n_heads = section.whole('d_model', 512), section.whole('n_heads', 8)
  if not n_heads or d_model % n_heads:
    raise section.refused('n_heads', f'a divisor of d_model, which is {d_model}')
  for field in ('d_attention_key', 'd_attention_value'):
    section.require(field, None, None, d_model // n_heads)
  dropout = section.get('dropout', 0.1)
  if type(dropout) not in (int, float):
    raise section.refused('dropout', 'a number')
  attention = {
    stack: read_attention(section, field, Sizes(d_model, n_heads, float(dropout), stack == 'decoder'))
    for stack, field in (('encoder', 'encoder_attention_type'), ('decoder', 'encoder_decoder_attention_type'))
  }
  centered = section.truth('center_layernorm', True)
  # The normalizations outside of blocks are made without the model's field.
  final_norm = Section(gin, 'LayerNorm')
  final_norm.require_known({'center', 'epsilon'})
  final_norm.require('epsilon', 1e-6, 1e-6)
  final_centered = final_norm.truth('center', True)

  def block(stack: str) -> BlockConfig:
    return BlockConfig(
      d_model=d_model,
      n_heads=n_heads,
      projection=attention[stack].projection,
      feed_forward=_feed_forward(section),
      recurrence=_recurrence(section),
      dropout=float(dropout),
      attention=attention[stack].attention,
      norm=_norm(centered),
      ff_chunk=section.whole('ff_chunk_size', 0),
    )

  vocab_size = section.get('input_vocab_size')
  if vocab_size is not None:
    vocab_size = section.whole('input_vocab_size', 0)
  output = _output(section)
  model = TerraformerConfig(
    # A number that the output layer allows; the file's takes its place.
    vocab_size=vocab_size or 2 * getattr(output, 'n_modules', 1),
    max_length=section.whole('max_len', 2048),
    positions=_positions(section),
    output=output,
    output_norm=None if centered == final_centered else _norm(final_centered),
    n_encoder_layers=section.whole('n_encoder_layers', 6),
    n_decoder_layers=section.whole('n_decoder_layers', 6),
    n_decoder_attentions=section.whole('n_decoder_attention_layers', 2),
    encoder=block('encoder'),
    decoder=block('decoder'),
    merge_encoder=not section.truth('reversible_encoder', False),
    exchange_encoder_streams=not section.truth('use_two_swaps_per_encoder_block', True),
  )
  rank = Section(gin, 'PositionalEncoding').get('d_feature')
  return Architecture(model, attention, vocab_size, rank if type(rank) is int else None)


def _section(gin: GinValues) -> Section:
  found = [name for name in _NAMES if name in gin.sections()]
  if len(found) != 1:
    says = f'both {_NAMES[0]} and {_NAMES[1]}' if found else f'no values for {_NAMES[0]}'
    raise UserError(f'{gin.name}: the file has {says}; give the config.gin of a Terraformer')
  return Section(gin, found[0])


def _norm(centered: bool) -> NormConfig:
  return LayerNormConfig() if centered else RMSNormConfig()


def _feed_forward(section: Section) -> FeedForwardConfig:
  d_ff, sparsity = section.whole('d_ff', 2048), section.get('ff_sparsity', 0)
  if sparsity in (0, None, ''):
    activation = section.get('ff_activation', Reference('Relu'))
    if not isinstance(activation, Reference) or activation.name != 'Relu':
      raise section.refused('ff_activation', '@Relu')
    return DenseFFConfig(d_ff)
  refused = section.refused('ff_sparsity', 'a whole number, or two or four numbers')
  if isinstance(sparsity, str):
    try:
      sparsity = [float(each) if '.' in each else int(each) for each in sparsity.split()]
    except ValueError as error:
      raise refused from error
  if type(sparsity) is int and sparsity > 0:
    return SparseFFConfig(d_ff, sparsity, d_ff // sparsity)
  if not isinstance(sparsity, (list, tuple)) or len(sparsity) not in (2, 4):
    raise refused
  block_size, rank, *noise = sparsity
  temperature, hard_probability = noise or (0.1, 0.3)
  return SparseFFConfig(d_ff, block_size, rank, temperature, hard_probability)


def _recurrence(section: Section) -> SRUConfig | None:
  value = section.get('ff_use_sru', 0)
  if not value:
    return None
  n_layers, width = value if isinstance(value, (list, tuple)) and len(value) == 2 else (value, _SRU_WIDTH)
  if n_layers != 1:
    raise section.refused('ff_use_sru', '0, 1, or 1 and a width')
  return SRUConfig(width)


def _output(section: Section) -> OutputConfig:
  kind, sparsity = section.get('loss_sparsity_type', 'mult'), section.whole('loss_sparsity', 0)
  if not sparsity or kind in (None, 'None'):
    return DenseOutputConfig()
  if kind == 'lowrank':
    return LowRankOutputConfig(section.whole('loss_d_lowrank', 0))
  if kind != 'mult':
    raise section.refused('loss_sparsity_type', "'mult', 'lowrank' or None")
  return SparseOutputConfig(sparsity)


def _positions(section: Section) -> PositionsConfig:
  kind = section.get('pos_type', 'fixed-base')
  if not kind:
    most, from_zero = section.whole('pos_max_offset_to_add', 0), section.get('pos_start_from_zero_prob', 1.0)
    return TablePositionsConfig(most, from_zero)
  if kind == 'fixed-base':
    digits = Section(section.gin, 'FixedBasePositionalEncoding')
    digits.require_known({'bases', 'n_digits', 'start_from_zero_one_in', 'base_dropout_one_in', 'initializer', 'mode'})
    bases = digits.get('bases', (11, 13, 14, 15))
    return FixedBasePositionsConfig(
      bases=tuple(bases) if isinstance(bases, (list, tuple)) else bases,
      n_digits=digits.whole('n_digits', 8),
      start_from_zero=1 / max(1, digits.whole('start_from_zero_one_in', 2)),
      drop=1 / max(1, digits.whole('base_dropout_one_in', 100)),
    )
  shape, widths = section.get('pos_axial_shape', ()), section.get('pos_d_axial_embs')
  if kind == 'axial' and isinstance(shape, (list, tuple)) and isinstance(widths, (list, tuple)):
    return AxialPositionsConfig(tuple(shape), tuple(widths))
  raise section.refused('pos_type', "None, 'fixed-base', or 'axial' with a shape and widths")
