"""A layer of a stack as a row of half-residuals: attention, cross-attention where there is a memory, feed-forward.

B batch, T time, D d_model.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import BlockConfig, ModelConfig
from terraformer.models.halves import AttentionHalf, CrossAttentionHalf, FeedForwardHalf, Padding
from terraformer.ops.constrain import split_by_example
from terraformer.ops.fixed_point import to_grid
from terraformer.ops.reversible import Streams, add


class Block(nnx.Module):
  """`n_attentions` attention half-residuals, a cross-attention one if asked for, and a feed-forward one."""

  def __init__(
    self, model: ModelConfig, config: BlockConfig, n_attentions: int, causal: bool, cross: bool, *, key: jax.Array
  ):
    ff_key, cross_key, *attention_keys = jax.random.split(key, n_attentions + 2)
    dtype = jnp.dtype(jnp.bfloat16 if model.bfloat16 else jnp.float32)
    self.attentions = nnx.List([AttentionHalf(config, causal, dtype, key=key) for key in attention_keys])
    self.cross = CrossAttentionHalf(config, dtype, key=cross_key) if cross else None
    self.feed_forward = FeedForwardHalf(config, dtype, key=ff_key)
    self.fixed_point = model.residual.fixed_point

  @property
  def halves(self) -> tuple[AttentionHalf | CrossAttentionHalf | FeedForwardHalf, ...]:
    """The half-residuals in the order in which they are applied."""
    return (*self.attentions, *([] if self.cross is None else [self.cross]), self.feed_forward)

  def _rounded(self, delta: jax.Array) -> jax.Array:
    return to_grid(delta) if self.fixed_point else delta

  def delta(self, index: int, x_BxTxD: jax.Array, padding: Padding, memory, key, choices) -> tuple[jax.Array, Any]:
    """What half-residual number `index` adds to a stream, and the discrete choices that it made."""
    x_BxTxD = split_by_example(x_BxTxD)
    delta_BxTxD, choices = self.halves[index](x_BxTxD, padding, memory, key=key, choices=choices)
    return self._rounded(split_by_example(delta_BxTxD)), choices

  def init_cache(self, batch: int, capacity: int, memory: jax.Array | None, padding: Padding) -> tuple:
    """A cache for each half-residual."""
    return tuple(half.init_cache(batch, capacity, memory, padding) for half in self.halves)

  def prefill(self, streams: Streams, length_B: jax.Array, capacity: int) -> tuple[Streams, tuple]:
    """All positions of the streams BxTxD, and the caches after the first `length_B` of them."""
    caches = []
    for half in self.halves:
      delta_BxTxD, cache = half.prefill(streams[-1], length_B, capacity)
      streams = add(streams, self._rounded(delta_BxTxD))
      caches.append(cache)
    return streams, tuple(caches)

  def step(self, streams: Streams, caches: tuple) -> tuple[Streams, tuple]:
    """One position of the streams BxD."""
    new_caches = []
    for half, cache in zip(self.halves, caches, strict=True):
      delta_BxD, cache = half.step(streams[-1], cache)
      streams = add(streams, self._rounded(delta_BxD))
      new_caches.append(cache)
    return streams, tuple(new_caches)
