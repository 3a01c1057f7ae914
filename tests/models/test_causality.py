"""Which tokens and positions the logits of a target depend on, from gradients that must be exactly 0 for all others.

The source has 6 tokens, 1 to 6, and 3 of padding; the targets are 7 tokens, 7 to 13. After the shift, target s is read
at position s + 1, so logits t may see it if s < t.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import EncoderDecoderConfig, LanguageModelConfig, ReversibleResidualConfig, TerraformerConfig
from terraformer.models.parameters import merge_module, split_module
from terraformer.models.stack import Stack
from terraformer.models.sublayers import SequenceMasks
from tests.models.examples import CONFIGS, DENSE_FF, LSH_IN_BUCKETS, PLAIN, SHARED_SPARSE, TERRAFORMERS, block, model
from tests.weights import filled, shapes

INPUTS_1XS, TARGETS_1XT = jnp.asarray([[1, 2, 3, 4, 5, 6, 0, 0, 0]]), jnp.arange(7, 14)[None]


@jax.jit
def _jacobian(model, key):
  """Returns the Jacobian of a random combination of each target's logits, by the tables of tokens and positions."""
  structure, params = split_module(model)
  tables = {name: value for name, value in params.items() if name == 'embedding' or 'positions' in name}
  mixed_V = jnp.asarray(np.random.default_rng(0).normal(size=20), jnp.float32)

  def logits(tables):
    return merge_module(structure, params | tables)(INPUTS_1XS, TARGETS_1XT, key=key)[0] @ mixed_V

  return jax.jacrev(logits)(tables)


def _depends(table) -> np.ndarray:
  """Returns whether each target depends on each row of a table."""
  return np.asarray(table).any(-1)


@functools.cache
def _influence(name):
  return _jacobian(model(CONFIGS[name]), None)


# All three models, with one and two streams; without LSH attention, which does not see every position that it may see.
by_kind = pytest.mark.parametrize('name', ['sparse', 'plain', 'cross', 'language'])


@by_kind
def test_logits_see_exactly_the_target_tokens_before_them(name):
  influence_TxV = _depends(_influence(name)['embedding']['table_VxD'])
  np.testing.assert_array_equal(influence_TxV[:, 7:14], np.tri(7, k=-1, dtype=bool))


@by_kind
def test_logits_see_all_source_tokens_and_no_absent_tokens(name):
  # Token 0 precedes the first target, and is the padding.
  influence_TxV = _depends(_influence(name)['embedding']['table_VxD'])
  assert influence_TxV[:, :7].all() and not influence_TxV[:, 14:].any()


def test_logits_see_exactly_the_target_positions_up_to_their_own():
  influence_TxP = _depends(_influence('sparse')['decoder_positions']['table_PxD'])
  np.testing.assert_array_equal(influence_TxP[:, :7], np.tri(7, dtype=bool))


def test_logits_see_exactly_the_real_source_positions():
  influence_TxP = _depends(_influence('sparse')['encoder_positions']['table_PxD'])
  np.testing.assert_array_equal(influence_TxP, np.broadcast_to(np.arange(9) < 6, (7, 9)))


def test_logits_of_a_language_model_see_exactly_the_positions_up_to_their_own():
  # Target t is predicted at position 6 + t.
  influence_TxP = _depends(_influence('language')['positions']['table_PxD'])
  np.testing.assert_array_equal(influence_TxP, np.arange(16) <= 6 + np.arange(7)[:, None])


# LSH attention in chunks of 4 positions in every stack; hashes are fixed, and buckets have no gradient.
_BLOCK = block(SHARED_SPARSE, DENSE_FF, None, attention=LSH_IN_BUCKETS)
IN_BUCKETS = {
  'terraformer': TerraformerConfig(20, 9, n_decoder_attentions=1, encoder=_BLOCK, decoder=_BLOCK),
  'encoder_decoder': EncoderDecoderConfig(20, 9, encoder=_BLOCK, decoder=_BLOCK),
  'language_model': LanguageModelConfig(20, 16, decoder=_BLOCK),
  'plain_language_model': LanguageModelConfig(20, 16, decoder=_BLOCK, residual=PLAIN),
}


@pytest.mark.parametrize('name', IN_BUCKETS)
@pytest.mark.parametrize('seed', range(3))
def test_with_buckets_logits_see_only_earlier_target_tokens(name, seed):
  influence_TxV = _depends(_jacobian(model(IN_BUCKETS[name], seed), None)['embedding']['table_VxD'])[:, 7:14]
  assert not (influence_TxV & ~np.tri(7, k=-1, dtype=bool)).any()
  # The previous token is always seen, because it is the input at that position.
  assert influence_TxV.diagonal(-1).all()


@pytest.mark.parametrize('name', ['plain', 'lsh_language'])
@pytest.mark.parametrize('seed', range(3))
def test_in_training_logits_see_only_earlier_target_tokens(name, seed):
  # With dropout, noise and soft masks.
  jacobian = _jacobian(model(CONFIGS[name], seed), jax.random.key(seed))
  influence_TxV = _depends(jacobian['embedding']['table_VxD'])[:, 7:14]
  assert not (influence_TxV & ~np.tri(7, k=-1, dtype=bool)).any() and influence_TxV.diagonal(-1).all()


@functools.cache
def _causal_stack(residual, attention):
  options = {} if attention is None else {'attention': attention, 'projection': SHARED_SPARSE}
  config = block(**options)
  model_config = dataclasses.replace(TERRAFORMERS['sparse'], residual=residual)
  return shapes(lambda key: Stack(model_config, config, 2, 1, causal=True, key=key))


@jax.jit
def _positions_seen(stack, x_BxTxD):
  mixed_D = jnp.asarray(np.random.default_rng(0).normal(size=24), jnp.float32)

  def last(x_BxTxD):
    y_BxTxD = stack.residual.merge_streams(stack(stack.residual.split_streams(x_BxTxD), SequenceMasks(None)))
    return (y_BxTxD @ mixed_D)[0]

  return jax.jacrev(last)(x_BxTxD)


@pytest.mark.parametrize('residual', [PLAIN, ReversibleResidualConfig()])
@pytest.mark.parametrize('attention', [None, LSH_IN_BUCKETS])
@pytest.mark.parametrize('seed', range(3))
def test_in_a_causal_stack_no_position_sees_later_positions(residual, attention, seed):
  x_BxTxD = np.random.default_rng(seed).normal(size=(1, 13, 24)).astype(np.float32)
  seen_TxP = np.asarray(_positions_seen(filled(_causal_stack(residual, attention), seed), x_BxTxD)).any((1, 3))
  before_TxP = np.tri(13, dtype=bool)
  assert not (seen_TxP & ~before_TxP).any()
  # Full attention sees all earlier positions; with buckets, a position sees itself and some of them.
  assert (seen_TxP == before_TxP).all() if attention is None else seen_TxP.diagonal().all()
