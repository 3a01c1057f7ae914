"""A layer of a stack as a row of half-residuals: attention sub-layers, then the feed-forward block.

B batch, T time, D d_model.
"""

import dataclasses
from typing import Any

import jax
from flax import nnx

from terraformer.config import BlockConfig, DenseFFConfig
from terraformer.layers.attention import Attention, AttentionCache
from terraformer.layers.dense import Dense
from terraformer.layers.dense_ff import DenseFF
from terraformer.layers.norm import LayerNorm
from terraformer.layers.sparse_ff import SparseFF
from terraformer.layers.sru import SRU
from terraformer.ops.dropout import dropout


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Padding:
  """Which positions are real.

  Attributes:
    real_BxT: False at padding; None where causal order already hides it.
  """

  real_BxT: jax.Array | None


class AttentionHalf(nnx.Module):
  """x -> dropout(attention(norm(x)))."""

  def __init__(self, config: BlockConfig, causal: bool, *, key: jax.Array):
    self.norm = LayerNorm(config.d_model)
    self.attention = Attention(config, causal, key=key)
    self.rate = config.dropout

  def __call__(self, x_BxTxD: jax.Array, padding: Padding, *, key=None, choices=None) -> tuple[jax.Array, None]:
    """All positions; full attention makes no discrete choices."""
    y_BxTxD = self.attention(self.norm(x_BxTxD), real_BxT=padding.real_BxT)
    return dropout(y_BxTxD, self.rate, key=key, shared_axes=(1,)), None

  def init_cache(self, batch: int, capacity: int) -> AttentionCache:
    """An empty cache."""
    return self.attention.init_cache(batch, capacity)

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array, capacity: int) -> tuple[jax.Array, AttentionCache]:
    """All positions, and the cache after the first `length_B`."""
    return self.attention.prefill(self.norm(x_BxTxD), length_B, capacity)

  def step(self, x_BxD: jax.Array, cache: AttentionCache) -> tuple[jax.Array, AttentionCache]:
    """One position."""
    return self.attention.step(self.norm(x_BxD), cache)


class RecurrentBranch(nnx.Module):
  """Dense to a small width, SRU, dense back, behind a normalisation of its own (paper, section 4.3)."""

  def __init__(self, config: BlockConfig, *, key: jax.Array):
    in_key, sru_key, out_key = jax.random.split(key, 3)
    width = config.recurrence.width
    self.norm = LayerNorm(config.d_model)
    self.contract = Dense(config.d_model, width, key=in_key)
    self.sru = SRU(width, key=sru_key)
    self.expand = Dense(width, config.d_model, key=out_key, axes=(None, 'embed'))

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """All positions, and the state after the first `length_B`."""
    h_BxTxW, state_BxW = self.sru.prefill(self.contract(self.norm(x_BxTxD)), length_B)
    return self.expand(h_BxTxW), state_BxW

  def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
    """All positions, left to right."""
    return self.expand(self.sru(self.contract(self.norm(x_BxTxD))))

  def step(self, x_BxD: jax.Array, state_BxW: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One position."""
    h_BxW, state_BxW = self.sru.step(self.contract(self.norm(x_BxD)), state_BxW)
    return self.expand(h_BxW), state_BxW


class FeedForwardHalf(nnx.Module):
  """x -> feed_forward(norm(x)) + recurrence(x)."""

  def __init__(self, config: BlockConfig, *, key: jax.Array):
    ff_key, recurrence_key = jax.random.split(key)
    feed_forward = DenseFF if isinstance(config.feed_forward, DenseFFConfig) else SparseFF
    self.norm = LayerNorm(config.d_model)
    self.feed_forward = feed_forward(config.feed_forward, config.d_model, config.dropout, key=ff_key)
    self.recurrence = None if config.recurrence is None else RecurrentBranch(config, key=recurrence_key)

  def __call__(self, x_BxTxD: jax.Array, padding: Padding, *, key=None, choices=None) -> tuple[jax.Array, Any]:
    """All positions, and the units that a sparse feed-forward block chose."""
    y_BxTxD, choices = self.feed_forward(self.norm(x_BxTxD), key=key, choices=choices)
    if self.recurrence is not None:
      y_BxTxD += self.recurrence(x_BxTxD)
    return y_BxTxD, choices

  def init_cache(self, batch: int, capacity: int) -> jax.Array | None:
    """The recurrence's state, whatever the capacity."""
    return None if self.recurrence is None else self.recurrence.sru.init_cache(batch)

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array, capacity: int) -> tuple[jax.Array, jax.Array | None]:
    """All positions, and the cache after the first `length_B`."""
    y_BxTxD, _ = self.feed_forward(self.norm(x_BxTxD))
    if self.recurrence is None:
      return y_BxTxD, None
    h_BxTxD, cache = self.recurrence.prefill(x_BxTxD, length_B)
    return y_BxTxD + h_BxTxD, cache

  def step(self, x_BxD: jax.Array, cache: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """One position."""
    y_BxD = self.feed_forward.step(self.norm(x_BxD))
    if self.recurrence is None:
      return y_BxD, None
    h_BxD, cache = self.recurrence.step(x_BxD, cache)
    return y_BxD + h_BxD, cache


class Block(nnx.Module):
  """`n_attentions` attention half-residuals and a feed-forward one; the streams swap after each."""

  def __init__(self, config: BlockConfig, n_attentions: int, causal: bool, *, key: jax.Array):
    *attention_keys, ff_key = jax.random.split(key, n_attentions + 1)
    self.attentions = nnx.List([AttentionHalf(config, causal, key=key) for key in attention_keys])
    self.feed_forward = FeedForwardHalf(config, key=ff_key)

  @property
  def halves(self) -> tuple[AttentionHalf | FeedForwardHalf, ...]:
    """The half-residuals in the order in which they are applied."""
    return (*self.attentions, self.feed_forward)

  def init_cache(self, batch: int, capacity: int) -> tuple:
    """A cache for each half-residual."""
    return tuple(half.init_cache(batch, capacity) for half in self.halves)

  def prefill(self, streams, length_B: jax.Array, capacity: int) -> tuple[tuple[jax.Array, jax.Array], tuple]:
    """All positions of the two streams BxTxD, and the caches after the first `length_B`."""
    a, b = streams
    caches = []
    for half in self.halves:
      delta, cache = half.prefill(b, length_B, capacity)
      a, b = b, a + delta
      caches.append(cache)
    return (a, b), tuple(caches)

  def step(self, streams, caches: tuple) -> tuple[tuple[jax.Array, jax.Array], tuple]:
    """One position of the two streams BxD."""
    a, b = streams
    new_caches = []
    for half, cache in zip(self.halves, caches, strict=True):
      delta, cache = half.step(b, cache)
      a, b = b, a + delta
      new_caches.append(cache)
    return (a, b), tuple(new_caches)
