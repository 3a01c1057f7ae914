"""B 2, T 9, D 24, H 3; each kind of sublayer alone, and their order in a block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import (
  BlockConfig,
  DenseFFConfig,
  DenseProjectionConfig,
  PlainResidualConfig,
  ReversibleResidualConfig,
  SparseFFConfig,
  SparseProjectionConfig,
  SRUConfig,
  TerraformerConfig,
)
from terraformer.models.block import Block
from terraformer.models.sublayers import AttentionSublayer, CrossAttentionSublayer, FeedForwardSublayer, SequenceMasks
from tests.weights import build, nothing_filled, shapes, steps

X_BXTXD = np.random.default_rng(0).normal(size=(2, 9, 24)).astype(np.float32)
FEED_FORWARDS = {'dense': DenseFFConfig(30), 'sparse': SparseFFConfig(30, 6, 7)}
MEMORY_BXSXD = np.random.default_rng(1).normal(size=(2, 6, 24)).astype(np.float32)
PADDING = SequenceMasks(None, np.arange(6) < np.asarray([[6], [4]]))


def _feed_forward(*arguments, seed=0):
  return build(lambda key: FeedForwardSublayer(_config(*arguments), jnp.float32, key=key), seed)


def _attention(*arguments):
  return build(lambda key: AttentionSublayer(_config(*arguments), True, jnp.float32, key=key))


def _config(feed_forward='dense', recurrence=None, dropout=0.0):
  projection = DenseProjectionConfig() if feed_forward == 'dense' else SparseProjectionConfig(4)
  return BlockConfig(24, 3, projection, FEED_FORWARDS[feed_forward], recurrence, dropout)


@jax.jit
def _call_and_steps(sublayer, x_BxTxD):
  cache = sublayer.init_cache(*x_BxTxD.shape[:2], MEMORY_BXSXD, PADDING)
  stepped_BxTxD, _ = steps(sublayer, x_BxTxD, cache, nothing_filled(2))
  return sublayer(x_BxTxD, PADDING, MEMORY_BXSXD)[0], stepped_BxTxD


@pytest.mark.parametrize('feed_forward', FEED_FORWARDS)
@pytest.mark.parametrize('recurrence', [None, SRUConfig(5)])
def test_step_of_the_feed_forward_sublayer_equals_call(feed_forward, recurrence):
  called, stepped = _call_and_steps(_feed_forward(feed_forward, recurrence), X_BXTXD)
  np.testing.assert_allclose(stepped, called, atol=1e-4)


@pytest.mark.parametrize('projection', ['dense', 'sparse'])
def test_step_of_the_cross_attention_sublayer_equals_call(projection):
  sublayer = build(lambda key: CrossAttentionSublayer(_config(projection), jnp.float32, key=key))
  called, stepped = _call_and_steps(sublayer, X_BXTXD)
  np.testing.assert_allclose(stepped, called, atol=1e-4)


@pytest.mark.parametrize('projection', ['dense', 'sparse'])
def test_step_of_the_attention_sublayer_equals_call(projection):
  called, stepped = _call_and_steps(_attention(projection), X_BXTXD)
  np.testing.assert_allclose(stepped, called, atol=1e-4)


def test_the_recurrent_branch_reads_the_stream_through_its_own_norm():
  sublayer = _feed_forward('dense', SRUConfig(5))
  branch = sublayer.recurrence
  recurrent_BxTxD = branch.expand(branch.sru(branch.contract(branch.norm(X_BXTXD))))
  expected = sublayer.feed_forward(sublayer.norm(X_BXTXD))[0] + recurrent_BxTxD
  np.testing.assert_allclose(sublayer(X_BXTXD, PADDING, None)[0], expected, atol=1e-5)


def test_all_tokens_of_an_example_share_one_attention_dropout_mask():
  sublayer = _attention('dense', None, 0.5)
  dropped = np.asarray(sublayer(X_BXTXD, PADDING, None, key=jax.random.key(0))[0]) == 0
  assert (dropped == dropped[:, :1]).all() and (dropped[0] != dropped[1]).any()


def test_dropout_does_not_affect_the_recurrent_branch():
  sublayer = _feed_forward('sparse', SRUConfig(5), 0.5)
  y_BxTxD, _ = sublayer(X_BXTXD, PADDING, None, key=jax.random.key(0))
  dropped_BxTxD = np.abs(y_BxTxD - sublayer.recurrence(X_BXTXD)) < 1e-5
  assert dropped_BxTxD.all((0, 1)).any() and not dropped_BxTxD.all()


@jax.jit
def _one_step(block, streams):
  return block.step(streams, block.init_cache(2, 1, MEMORY_BXSXD, PADDING), nothing_filled(2))[0]


def _block(residual, cross=False):
  model = TerraformerConfig(residual=residual)
  return build(lambda key: Block(model, _config(), 2, causal=True, cross=cross, key=key))


def _branches(block):
  """Yields a function per sublayer of a block that computes one position BxD from the sublayer's layers."""
  for sublayer in block.attentions:
    yield lambda x_BxD, one=sublayer: one.attention(one.norm(x_BxD)[:, None])[0][:, 0]
  if block.cross is not None:
    yield lambda x_BxD: block.cross.attention(block.cross.norm(x_BxD)[:, None], MEMORY_BXSXD, PADDING.memory_BxS)[:, 0]
  yield lambda x_BxD: block.feed_forward.feed_forward.step(block.feed_forward.norm(x_BxD))


@pytest.mark.parametrize('cross', [False, True])
def test_a_reversible_block_adds_and_swaps_as_in_the_paper(cross):
  block = _block(ReversibleResidualConfig(), cross)
  a, b = X_BXTXD[:, 0], X_BXTXD[:, 1]
  found = _one_step(block, (a, b))
  for branch in _branches(block):
    a, b = b, a + branch(b)
  np.testing.assert_allclose(jnp.stack(found), jnp.stack([a, b]), atol=1e-4)


@pytest.mark.parametrize('cross', [False, True])
def test_a_plain_block_adds_to_the_stream_it_reads(cross):
  block = _block(PlainResidualConfig(), cross)
  x = X_BXTXD[:, 0]
  (found,) = _one_step(block, (x,))
  for branch in _branches(block):
    x = x + branch(x)
  np.testing.assert_allclose(found, x, atol=1e-4)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('index', range(3))
def test_the_delta_of_a_sublayer_is_float32(index, dtype):
  model = TerraformerConfig(bfloat16=dtype == jnp.bfloat16)
  block = shapes(lambda key: Block(model, _config('sparse', SRUConfig(5)), 1, causal=True, cross=True, key=key))
  assert block.sublayers[index].dtype == dtype
  arguments = X_BXTXD, None, PADDING, MEMORY_BXSXD, None
  delta, _ = jax.eval_shape(lambda block: block.delta(*arguments, number=index), block)
  assert (delta.shape, delta.dtype) == (X_BXTXD.shape, jnp.float32)
