"""Losses and gradients of packed rows, compared with those of the same examples in separate rows.

Row 0 has sources of 4, 3 and 2 tokens and targets of 2, 3 and 2. Row 1 has sources of 5 and 0 tokens and targets of 3
and 3, then padding. S 9, T 7, the sizes of `examples`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import FixedBasePositionsConfig, LSHAttentionConfig, ReversibleResidualConfig
from terraformer.ops.segments import Segments
from terraformer.training.loss import model_losses, summed_loss
from tests.models.examples import CONFIGS, SHARED_SPARSE, block, model
from tests.models.test_causality import IN_BUCKETS

ROWS = (((4, 2), (3, 3), (2, 2)), ((5, 3), (0, 3)))
# One chunk holds all positions, so hashes do not change what attention sees.
_LSH = block(SHARED_SPARSE, attention=LSHAttentionConfig(chunk_length=16, full_below=0))
_IN_BUCKETS = {'encoder': _LSH, 'decoder': _LSH, 'residual': ReversibleResidualConfig()}
WITH_GRADIENTS = {name: CONFIGS[name] for name in ('sparse', 'cross', 'language')} | {
  'buckets': dataclasses.replace(CONFIGS['lsh'], **_IN_BUCKETS, positions=FixedBasePositionsConfig((3, 5), 4)),
}


def _padded(parts, length):
  joined = np.concatenate([*parts, np.zeros(0, int)]).astype(int)
  return np.pad(joined, (0, length - len(joined)))


def _rows(examples):
  """Returns a row of inputs, a row of targets, and the segments of both, for examples (source, target)."""
  numbered = [[np.full(len(ids), n + 1) for ids in pair] for n, pair in enumerate(examples)]
  return [
    _padded([pair[side] for pair in pairs], length)
    for pairs in (examples, numbered)
    for side, length in ((0, 9), (1, 7))
  ]


def batches():
  """Returns (inputs, targets, segments) of the packed rows, and (inputs, targets) with one row per example."""
  rng = np.random.default_rng(0)
  packs = [[(rng.integers(1, 20, s), rng.integers(1, 20, t)) for s, t in row] for row in ROWS]
  inputs, targets, *segments = map(jnp.asarray, map(np.stack, zip(*map(_rows, packs), strict=True)))
  alone = map(np.stack, zip(*[_rows([pair])[:2] for pack in packs for pair in pack], strict=True))
  return (inputs, targets, Segments(*segments)), tuple(map(jnp.asarray, alone))


def _real(losses):
  return losses['loss_BxT'][losses['mask'] > 0]


@jax.jit
def _losses(model, inputs_BxS, targets_BxT, segments=None):
  return model_losses(model, inputs_BxS, targets_BxT, segments=segments)


@pytest.mark.parametrize('name', ['plain', 'plain_lsh_language'])
def test_packed_examples_have_the_losses_of_examples_alone(name):
  found, expected = (_losses(model(CONFIGS[name]), *batch) for batch in batches())
  np.testing.assert_allclose(_real(found), _real(expected), atol=1e-5)


@jax.jit
def _gradients(model, *batch):
  def loss(model):
    losses = _losses(model, *batch)
    return summed_loss(losses), losses

  return jax.grad(loss, has_aux=True)(model)


@pytest.mark.parametrize('name', WITH_GRADIENTS)
def test_packed_examples_have_the_losses_and_the_gradient_of_examples_alone(name):
  one = model(WITH_GRADIENTS[name])
  (found, losses), (expected, expected_losses) = (_gradients(one, *batch) for batch in batches())
  np.testing.assert_allclose(_real(losses), _real(expected_losses), atol=1e-5)
  largest = max(np.abs(x).max() for x in jax.tree.leaves(expected))
  for (path, x), (_, y) in zip(*map(jax.tree_util.tree_leaves_with_path, (found, expected)), strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5 * max(1, largest), err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize('name', ['terraformer', 'encoder_decoder'])
def test_in_training_with_buckets_an_example_learns_only_from_its_own_tokens(name):
  # The segments have tokens 1 to 6, 7 to 12 and 13 to 18; the loss is that of the second.
  inputs_BxS, targets_BxT = jnp.asarray([[1, 2, 3, 7, 8, 9, 13, 14, 15]]), jnp.asarray([[4, 5, 10, 11, 12, 16, 17]])
  segments = Segments((inputs_BxS + 5) // 6, (targets_BxT + 5) // 6)

  @jax.jit
  def gradient(model, key):
    def loss(model):
      losses = model_losses(model, inputs_BxS, targets_BxT, segments=segments, key=key)
      return (losses['loss_BxT'] * (segments.targets_BxT == 2)).sum()

    return jax.grad(loss)(model).embedding.table_VxD[...]

  learns_V = np.asarray(gradient(model(IN_BUCKETS[name]), jax.random.key(0))).any(-1)
  # Token 0 precedes the first target. Buckets may hide some source tokens, and no position reads the last target.
  assert {0, 10, 11} < set(np.flatnonzero(learns_V)) <= {0, 7, 8, 9, 10, 11}
