"""The models of `examples` as configs make them: initial values, shapes, names of axes. Also the paper's model size."""

import jax
import jax.numpy as jnp
import pytest

from terraformer.config import (
  BlockConfig,
  DenseProjectionConfig,
  EncoderDecoderConfig,
  LanguageModelConfig,
  SparseFFConfig,
  SparseOutputConfig,
  SparseProjectionConfig,
  SRUConfig,
  TerraformerConfig,
)
from terraformer.layers.parameter import facts_of
from terraformer.models.encoder_decoder import EncoderDecoder
from terraformer.models.language_model import LanguageModel
from terraformer.models.make import abstract_model, layerwise, make_model
from terraformer.models.parameters import describe, flatten, split_module
from terraformer.models.stack import LayerwiseStack, Stack
from terraformer.models.terraformer import Terraformer
from terraformer.ops.cache_slots import FilledSlots
from tests.models.examples import CONFIGS, DENSE, DENSE_FF, abstract, block, tokens

by_config = pytest.mark.parametrize('name', CONFIGS)
KINDS = {'sparse': Terraformer, 'cross': EncoderDecoder, 'language': LanguageModel}


@pytest.mark.parametrize('name', KINDS)
def test_a_config_makes_its_own_model(name):
  assert type(abstract(CONFIGS[name])) is KINDS[name]


@pytest.mark.parametrize('name', KINDS)
def test_an_abstract_model_has_the_shapes_of_the_real_model(name):
  model = jax.jit(make_model, static_argnums=0)(CONFIGS[name], key=jax.random.key(0))
  found, expected = abstract(CONFIGS[name]), model
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  assert [*map(describe, jax.tree.leaves(found))] == [*map(describe, jax.tree.leaves(expected))]


def test_a_model_made_under_jit_is_the_same():
  config = LanguageModelConfig(20, 16, decoder=block(DENSE, DENSE_FF, None), n_layers=1)
  one, other = (make(config, key=jax.random.key(0)) for make in (jax.jit(make_model, static_argnums=0), make_model))
  assert all(jnp.allclose(*pair, atol=1e-6) for pair in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


@by_config
def test_logits_have_the_shape_of_targets_and_vocabulary(name):
  logits = jax.eval_shape(lambda model, *tokens: model(*tokens), abstract(CONFIGS[name]), *tokens(0))
  assert describe(logits) == 'float32[3, 7, 20]'


@by_config
def test_a_step_returns_logits_and_a_cache_of_the_same_structure(name):
  model = abstract(CONFIGS[name])
  cache = jax.eval_shape(lambda model, inputs: model.prefill(inputs, 7), model, tokens(0)[0])
  logits, after = jax.eval_shape(lambda model, cache: model.step(jnp.zeros(3, jnp.int32), cache), model, cache)
  assert describe(logits) == 'float32[3, 20]'
  assert jax.tree.map(describe, after) == jax.tree.map(describe, cache)


@by_config
@pytest.mark.parametrize('unstacked', [False, True])
def test_all_layers_share_the_filled_slots(name, unstacked):
  model = abstract(CONFIGS[name])
  model = jax.eval_shape(layerwise, model) if unstacked else model
  state = jax.eval_shape(lambda model, inputs: model.prefill(inputs, 7), model, tokens(0)[0])
  is_filled = lambda node: isinstance(node, FilledSlots)  # noqa: E731
  assert sum(map(is_filled, jax.tree.leaves(state, is_leaf=is_filled))) == 1
  assert describe(state.filled.prompt_B) == 'int32[3]' and describe(state.filled.next_slot) == 'int32[]'


@by_config
def test_every_dimension_of_every_parameter_has_a_name(name):
  model = abstract(CONFIGS[name])
  ranks = {path: len(leaf.shape) for path, leaf in flatten(split_module(model)[1]).items()}
  assert {path: len(facts.axes) for path, facts in facts_of(model).items()} == ranks


@by_config
def test_layers_is_the_first_axis_of_stacked_parameters_only(name):
  for path, facts in facts_of(abstract(CONFIGS[name])).items():
    names, in_stack = facts.axes, path.split('.')[0] in ('encoder', 'decoder')
    assert names.count('layers') == in_stack and (names[:1] == ('layers',)) == in_stack, path


@by_config
def test_layerwise_unstacks_every_stack_and_keeps_all_numbers(name):
  model = abstract(CONFIGS[name])
  unstacked = jax.eval_shape(layerwise, model)
  stacks = [group for group, value in vars(model).items() if isinstance(value, Stack)]
  assert stacks and all(isinstance(getattr(unstacked, group), LayerwiseStack) for group in stacks)
  assert sum(leaf.size for leaf in jax.tree.leaves(unstacked)) == sum(leaf.size for leaf in jax.tree.leaves(model))


def test_layerwise_does_not_change_its_argument():
  model = abstract(CONFIGS['sparse'])
  jax.eval_shape(layerwise, model)
  assert isinstance(model.decoder, Stack)


# --- The paper's size ------------------------------------------------------------------------------------------------


def _paper_block(projection):
  return BlockConfig(1024, 16, projection, SparseFFConfig(6144, 64, 96), SRUConfig(32))


PAPER = TerraformerConfig(
  vocab_size=32_000,
  max_length=512,
  n_encoder_layers=24,
  n_decoder_layers=24,
  encoder=_paper_block(DenseProjectionConfig()),
  decoder=_paper_block(SparseProjectionConfig(16, 3, 3)),
  output=SparseOutputConfig(4),
)


def test_the_paper_size_has_800_million_parameters():
  # The paper's 800M: decoder and feed-forward blocks are sparse, the encoder's attention is dense; 512 positions.
  d, norm = 1024, 2 * 1024
  controller = d * 96 + 96 * 6144 + 6144
  feed_forward = norm + controller + 2 * d * 6144 + d
  recurrence = norm + (d * 32 + 32) + (32 * 96 + 96) + (32 * d + d)
  dense_attention = norm + 4 * (d * d + d)
  multiplicative = 16 * d + d * 64 + d
  convolutions = 2 * (3 * 3 * 64 * 64 + 64) + (3 * 1 * 64 * 64 + 64)
  sparse_attention = norm + multiplicative + convolutions
  encoder = 24 * (dense_attention + feed_forward + recurrence)
  decoder = 24 * (2 * sparse_attention + feed_forward + recurrence)
  output = 4 * d + d * 8000 + 32_000
  expected = 32_000 * d + 2 * 512 * d + encoder + decoder + norm + output
  assert expected == 791_974_144
  assert sum(leaf.size for leaf in jax.tree.leaves(abstract_model(PAPER))) == expected


SIZES = {'n_encoder_layers': 24, 'n_decoder_layers': 24, 'encoder': PAPER.decoder, 'decoder': PAPER.decoder}


@pytest.mark.parametrize(
  'config',
  [
    PAPER,
    EncoderDecoderConfig(32_000, 512, **SIZES),
    LanguageModelConfig(32_000, 1024, n_layers=24, decoder=PAPER.decoder),
  ],
)
def test_logits_of_the_paper_size_have_the_shape_of_targets_and_vocabulary(config):
  inputs, targets = (jax.ShapeDtypeStruct((2, length), jnp.int32) for length in (512, 256))
  logits = jax.eval_shape(lambda model, *tokens: model(*tokens), abstract_model(config), inputs, targets)
  assert describe(logits) == 'float32[2, 256, 32000]'
