"""The model that a config.gin describes: what is recognised, and what is refused by name."""

import dataclasses
from pathlib import Path

import jax
import pytest

from terraformer.config import (
  AxialPositionsConfig,
  DenseFFConfig,
  DenseOutputConfig,
  DenseProjectionConfig,
  FixedBasePositionsConfig,
  FullAttentionConfig,
  LayerNormConfig,
  LowRankOutputConfig,
  LSHAttentionConfig,
  ModularProjectionConfig,
  RMSNormConfig,
  SparseFFConfig,
  SparseOutputConfig,
  SparseProjectionConfig,
  SRUConfig,
  UserError,
)
from terraformer.decode.bundle import parameter_shapes
from terraformer.trax.architecture import read_architecture
from terraformer.trax.gin_values import GinValues
from terraformer.trax.layout import layout

FOLDER = Path(__file__).parent / 'checkpoints'
BASE = """
ConfigurableTerraformer.d_model = 48
ConfigurableTerraformer.n_heads = 4
ConfigurableTerraformer.input_vocab_size = 84
ConfigurableTerraformer.d_ff = 60
ConfigurableTerraformer.n_encoder_layers = 1
ConfigurableTerraformer.n_decoder_layers = 2
ConfigurableTerraformer.pos_type = None
ConfigurableTerraformer.encoder_attention_type = @Attention
ConfigurableTerraformer.encoder_decoder_attention_type = @CausalAttention
ConfigurableTerraformer.reversible_encoder = True
"""


def _read(*lines):
  return read_architecture(GinValues('\n'.join([BASE, *lines]), 'config.gin'))


def _model(*lines):
  return _read(*(line if '.' in line.split('=')[0] else f'ConfigurableTerraformer.{line}' for line in lines)).model


def _entries(architecture, n_positions=32):
  """The entries of a file, with as many positions as this."""
  found, wanted = [], layout(architecture)
  parts = next(wanted)
  while True:
    part = next((part for part in parts if part.name.endswith('_pos/table')), parts[-1])
    shape = tuple(n_positions if n is None else n for n in part.shape)
    found.append((part, shape))
    try:
      parts = wanted.send((part, shape))
    except StopIteration:
      return found


RECOGNISED = {
  'ff_sparsity = 5': lambda m: m.encoder.feed_forward == SparseFFConfig(60, 5, 12),
  'ff_sparsity = (5, 7)': lambda m: m.decoder.feed_forward == SparseFFConfig(60, 5, 7),
  'ff_sparsity = (5, 7, 0.2, 0.9)': lambda m: m.decoder.feed_forward == SparseFFConfig(60, 5, 7, 0.2, 0.9),
  "ff_sparsity = '5 7'": lambda m: m.decoder.feed_forward == SparseFFConfig(60, 5, 7),
  'ff_sparsity = 0': lambda m: m.decoder.feed_forward == DenseFFConfig(60),
  'ff_use_sru = (1, 6)': lambda m: m.encoder.recurrence == SRUConfig(6),
  'ff_use_sru = 1': lambda m: m.encoder.recurrence == SRUConfig(32),
  'ff_use_sru = 0': lambda m: m.encoder.recurrence is None,
  'loss_sparsity = 3': lambda m: m.output == SparseOutputConfig(3),
  'loss_sparsity = 0': lambda m: m.output == DenseOutputConfig(),
  'center_layernorm = False': lambda m: (m.decoder.norm, m.output_norm) == (RMSNormConfig(), LayerNormConfig()),
  'reversible_encoder = False': lambda m: m.merge_encoder,
  'use_two_swaps_per_encoder_block = False': lambda m: m.exchange_encoder_streams,
  'use_two_swaps_per_encoder_block = 0': lambda m: m.exchange_encoder_streams,
  'n_decoder_attention_layers = 1': lambda m: m.n_decoder_attentions == 1,
  "pos_type = 'fixed-base'": lambda m: m.positions == FixedBasePositionsConfig(start_from_zero=0.5, drop=0.01),
  'ff_chunk_size = 7': lambda m: m.encoder.ff_chunk == 7,
  'dropout = 0.25': lambda m: m.encoder.dropout == m.encoder.attention.dropout == 0.25,
  'encoder_attention_type = @SelfAttention': lambda m: m.encoder.projection == DenseProjectionConfig(bias=False),
  'encoder_decoder_attention_type = @MultiplicativeModularCausalAttention': lambda m: (
    m.decoder.projection == ModularProjectionConfig(4)
  ),
  'encoder_decoder_attention_type = @MultiplicativeConvCausalAttention': lambda m: (
    m.decoder.projection == SparseProjectionConfig(4)
  ),
  'encoder_decoder_attention_type = (@CausalAttention, @CausalAttention)': lambda m: (
    m.decoder.attention == FullAttentionConfig(dropout=0.1)
  ),
}


@pytest.mark.parametrize('line', RECOGNISED)
def test_a_field_is_recognised(line):
  assert RECOGNISED[line](_model(line))


def test_several_fields_of_an_output_and_of_positions_are_recognised():
  low_rank = _model("loss_sparsity_type = 'lowrank'", 'loss_sparsity = 1', 'loss_d_lowrank = 9')
  axial = _model("pos_type = 'axial'", 'pos_axial_shape = (4, 8)', 'pos_d_axial_embs = (16, 32)', 'max_len = 32')
  assert low_rank.output == LowRankOutputConfig(9) and axial.positions == AxialPositionsConfig((4, 8), (16, 32))


@pytest.mark.parametrize('value', ['5', 'None', '(2, 4)', '@Foo', "(4, 'a')", '()'])
@pytest.mark.parametrize('field', ['pos_axial_shape', 'pos_d_axial_embs'])
def test_axial_positions_that_make_no_sense_are_refused(field, value):
  whole = ['pos_axial_shape = (4, 8)', 'pos_d_axial_embs = (16, 32)', 'max_len = 32']
  with pytest.raises(UserError, match='pos_type|AxialPositionsConfig|max_length'):
    _model("pos_type = 'axial'", *whole, f'{field} = {value}')


def test_options_of_sparse_attention_are_recognised():
  model = _model(
    'encoder_decoder_attention_type = @MultiplicativeConvCausalAttention',
    'MultiplicativeConvCausalAttention.sparsity = 6',
    'MultiplicativeConvCausalAttention.length_kernel_size = 2',
    'MultiplicativeConvCausalAttention.share_qk = True',
    "MultiplicativeConvCausalAttention.v_concat_type = 'original'",
    "MultiplicativeConvCausalAttention.output_layer_type = 'multconv'",
    'MultiplicativeConvCausalAttention.force_no_dropout = True',
  )
  assert model.decoder.projection == SparseProjectionConfig(
    6, 2, 3, True, value_reads_input=True, value_by_module=False, output_multiplicative=True, output_convolution=True
  )
  assert model.decoder.attention.dropout == 0.0 and model.encoder.attention.dropout == 0.1


LSH = [
  'encoder_attention_type = @e/PureLSHSelfAttentionWrapper',
  'encoder_decoder_attention_type = @PureLSHSelfAttentionWrapper',
  'PureLSHSelfAttentionWrapper.pure_lsh_implementation = @MixedLSHSelfAttention',
  "PureLSHSelfAttentionWrapper.weights_format = 'sparse'",
  'PureLSHSelfAttentionWrapper.sparsity = 4',
  "e/PureLSHSelfAttentionWrapper.weights_format = 'model'",
  'MixedLSHSelfAttention.chunk_len = 8',
  'MixedLSHSelfAttention.n_hashes = 2',
  'MixedLSHSelfAttention.std_length = 24',
  'e/MixedLSHSelfAttention.n_chunks_after = 1',
  'e/MixedLSHSelfAttention.n_buckets = 6',
]


def test_values_of_the_encoders_scope_are_those_of_the_encoder():
  model = _model(*LSH)
  shared = LSHAttentionConfig(8, 2, full_below=8, window=16, dropout=0.1, plain_below=24)
  assert model.encoder.attention == dataclasses.replace(shared, n_buckets=(6,), chunks_after=1)
  assert model.decoder.attention == dataclasses.replace(shared, chunks_after=0)
  assert (type(model.encoder.projection), type(model.decoder.projection)) == (
    DenseProjectionConfig,
    SparseProjectionConfig,
  )


def test_one_hash_whose_chunks_hold_everything_sees_everything():
  model = _model(*LSH, 'MixedLSHSelfAttention.n_hashes = 1')
  assert (model.encoder.attention.full_below, model.decoder.attention.full_below) == (24, 16)


def test_the_former_name_of_the_model_is_read():
  assert read_architecture(GinValues(BASE.replace('ConfigurableTerraformer', 'Reformer2'), 'config.gin')).model


REFUSED = [
  'n_layers_forget = 1',
  'half_before_layer = 2',
  'double_after_layer = 1',
  'loss_sparsity_prob = 0.5',
  'output_vocab_size = 90',
  'd_attention_key = 16',
  'd_attention_value = 6',
  'ff_activation = @FastGelu',
  'ff_use_sru = (2, 6)',
  "ff_sparsity = 'five'",
  'ff_sparsity = (1, 2, 3)',
  "pos_type = 'time-bin'",
  "pos_type = 'sin-cos'",
  "pos_type = 'no'",
  "pos_type = 'axial'",
  "reversible_encoder = 'yes'",
  'use_two_swaps_per_encoder_block = 2',
  'center_layernorm = 0.0',
  'n_heads = 5',
  "d_model = '48'",
  "dropout = 'much'",
  'n_encoder_layers = -1',
  'encoder_attention_type = @CausalAttention',
  'encoder_decoder_attention_type = @Attention',
  'encoder_decoder_attention_type = @CausalFavor',
  'encoder_decoder_attention_type = (@CausalAttention, @SelfAttention)',
  'encoder_attention_type = None',
]


@pytest.mark.parametrize('line', REFUSED)
def test_a_field_that_cannot_be_expressed_is_named(line):
  with pytest.raises(UserError, match=f'ConfigurableTerraformer.{line.split(" ")[0]} is .*cannot express'):
    _model(line)


@pytest.mark.parametrize(
  ('line', 'says'),
  [
    ('PureLSHSelfAttentionWrapper.rotary_position_emb = True', 'rotary_position_emb is True'),
    ("PureLSHSelfAttentionWrapper.weights_format = 'heads'", 'weights_format is'),
    ('PureLSHSelfAttentionWrapper.num_weights = 4', 'num_weights is 4'),
    ('PureLSHSelfAttentionWrapper.pure_lsh_implementation = @Other', 'pure_lsh_implementation is'),
    ('PureLSHSelfAttentionWrapper.novelty = 1', 'PureLSHSelfAttentionWrapper.novelty is a field'),
    ('MixedLSHSelfAttention.novelty = 1', 'MixedLSHSelfAttention.novelty is a field'),
    ('MixedLSHSelfAttention.n_buckets = 7', 'even factors'),
    ("MixedLSHSelfAttention.n_buckets = 'many'", 'n_buckets is'),
    ('MixedLSHSelfAttention.chunk_len = 0', 'chunk_length'),
    ('LayerNorm.epsilon = 1e-05', 'LayerNorm.epsilon is 1e-05'),
  ],
)
def test_a_field_of_a_layer_that_cannot_be_expressed_is_named(line, says):
  with pytest.raises(UserError, match=says):
    _model(*LSH, line)


def test_both_names_of_the_model_are_refused():
  with pytest.raises(UserError, match='both ConfigurableTerraformer and Reformer2'):
    _read('Reformer2.d_model = 48')


VARIANTS = {
  'dense': [],
  'sparse': ['ff_sparsity = (5, 7)', 'ff_use_sru = (1, 6)', 'loss_sparsity = 3', 'reversible_encoder = False'],
  'root mean square': ['center_layernorm = False', 'reversible_encoder = False'],
  'by heads': ['encoder_attention_type = @SelfAttention', 'encoder_decoder_attention_type = @LSHSelfAttention'],
  'modular': ['encoder_decoder_attention_type = @MultiplicativeModularCausalAttention'],
  'hashed': LSH,
  'hashed with two weights': [*LSH, 'PureLSHSelfAttentionWrapper.num_weights = 2'],
  'convolutions behind attention': [
    'encoder_decoder_attention_type = @MultiplicativeConvCausalAttention',
    "MultiplicativeConvCausalAttention.v_concat_type = 'fixed'",
    "MultiplicativeConvCausalAttention.output_layer_type = 'multconv'",
  ],
  'low rank': ["loss_sparsity_type = 'lowrank'", 'loss_sparsity = 1', 'loss_d_lowrank = 9'],
  'digits': ["pos_type = 'fixed-base'"],
  'axial': ["pos_type = 'axial'", 'pos_axial_shape = (4, 8)', 'pos_d_axial_embs = (16, 32)', 'max_len = 32'],
}


@pytest.mark.parametrize('name', VARIANTS)
def test_the_entries_of_an_architecture_are_all_parameters_of_its_model(name):
  lines = [line if '.' in line.split('=')[0] else f'ConfigurableTerraformer.{line}' for line in VARIANTS[name]]
  architecture = _read(*lines)
  entries = _entries(architecture)
  model = dataclasses.replace(architecture.model, max_length=32)
  wanted, sizes = parameter_shapes(model), {}
  for part, shape in entries:
    if part.to:
      sizes.setdefault(part.to, []).append(int(jax.numpy.prod(jax.numpy.array(shape))))
  assert sizes.keys() == wanted.keys()
  for path, shape in wanted.items():
    # Parts that are averaged have the parameter's size each, parts of a stack together.
    assert shape.size in (sizes[path][0], sum(sizes[path])) or path == 'output.expand.bias_F'
