"""B 2, T 9, D 24, H 3; each kind of half-residual on its own, and their order in a block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import (
  BlockConfig,
  DenseFFConfig,
  DenseProjectionConfig,
  SparseFFConfig,
  SparseProjectionConfig,
  SRUConfig,
)
from terraformer.models.block import AttentionHalf, Block, FeedForwardHalf, Padding
from tests.weights import build

X_BXTXD = np.random.default_rng(0).normal(size=(2, 9, 24)).astype(np.float32)
FEED_FORWARDS = {'dense': DenseFFConfig(30), 'sparse': SparseFFConfig(30, 6, 7)}
NO_PADDING = Padding(None)


def _config(feed_forward='dense', recurrence=None, dropout=0.0):
  projection = DenseProjectionConfig() if feed_forward == 'dense' else SparseProjectionConfig(4)
  return BlockConfig(24, 3, projection, FEED_FORWARDS[feed_forward], recurrence, dropout)


@jax.jit
def _call_and_steps(half, x_BxTxD):
  cache = half.init_cache(x_BxTxD.shape[0], x_BxTxD.shape[1])
  _, y_TxBxD = jax.lax.scan(lambda cache, x_BxD: half.step(x_BxD, cache)[::-1], cache, x_BxTxD.swapaxes(0, 1))
  return half(x_BxTxD, NO_PADDING)[0], y_TxBxD.swapaxes(0, 1)


@pytest.mark.parametrize('feed_forward', FEED_FORWARDS)
@pytest.mark.parametrize('recurrence', [None, SRUConfig(5)])
def test_step_of_the_feed_forward_half_equals_call(feed_forward, recurrence):
  called, stepped = _call_and_steps(
    build(lambda key: FeedForwardHalf(_config(feed_forward, recurrence), key=key)), X_BXTXD
  )
  np.testing.assert_allclose(stepped, called, atol=1e-4)


@pytest.mark.parametrize('projection', ['dense', 'sparse'])
def test_step_of_the_attention_half_equals_call(projection):
  called, stepped = _call_and_steps(build(lambda key: AttentionHalf(_config(projection), True, key=key)), X_BXTXD)
  np.testing.assert_allclose(stepped, called, atol=1e-4)


def test_the_recurrent_branch_reads_the_stream_through_its_own_norm():
  half = build(lambda key: FeedForwardHalf(_config('dense', SRUConfig(5)), key=key))
  branch = half.recurrence
  expected = half.feed_forward(half.norm(X_BXTXD))[0] + branch.expand(branch.sru(branch.contract(branch.norm(X_BXTXD))))
  np.testing.assert_allclose(half(X_BXTXD, NO_PADDING)[0], expected, atol=1e-5)


def test_attention_dropout_is_one_draw_for_all_tokens_of_an_example():
  half = build(lambda key: AttentionHalf(_config(dropout=0.5), True, key=key))
  dropped = np.asarray(half(X_BXTXD, NO_PADDING, key=jax.random.key(0))[0]) == 0
  assert (dropped == dropped[:, :1]).all() and (dropped[0] != dropped[1]).any()


def test_dropout_spares_the_recurrent_branch():
  half = build(lambda key: FeedForwardHalf(_config('sparse', SRUConfig(5), dropout=0.5), key=key))
  y_BxTxD, _ = half(X_BXTXD, NO_PADDING, key=jax.random.key(0))
  dropped_BxTxD = np.abs(y_BxTxD - half.recurrence(X_BXTXD)) < 1e-5
  assert dropped_BxTxD.all((0, 1)).any() and not dropped_BxTxD.all()


def test_a_block_adds_and_swaps_as_in_the_paper():
  block = build(lambda key: Block(_config(), 2, True, key=key))
  a, b = X_BXTXD[:, 0], X_BXTXD[:, 1]
  (found_a, found_b), _ = jax.jit(lambda block, streams: block.step(streams, block.init_cache(2, 1)))(block, (a, b))
  for half in block.attentions:
    a, b = b, a + half.attention(half.norm(b)[:, None])[:, 0]
  a, b = b, a + block.feed_forward.feed_forward.step(block.feed_forward.norm(b))
  np.testing.assert_allclose(jnp.stack([found_a, found_b]), jnp.stack([a, b]), atol=1e-4)
