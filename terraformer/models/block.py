"""A layer of a stack: a sequence of attention, cross-attention and feed-forward sublayers.

B batch, T time, D d_model.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import BlockConfig, ModelConfig
from terraformer.models.residual import Residual
from terraformer.models.sublayers import AttentionSublayer, CrossAttentionSublayer, FeedForwardSublayer, SequenceMasks
from terraformer.ops.cache_slots import FilledSlots
from terraformer.ops.constrain import split_by_example
from terraformer.ops.keys import fold_key
from terraformer.ops.reversible import Streams, add


class Block(nnx.Module):
  """`n_attentions` attention sublayers, a cross-attention sublayer if `cross`, and a feed-forward sublayer."""

  def __init__(
    self, model: ModelConfig, config: BlockConfig, n_attentions: int, causal: bool, cross: bool, *, key: jax.Array
  ):
    ff_key, cross_key, *attention_keys = jax.random.split(key, n_attentions + 2)
    dtype = jnp.dtype(jnp.bfloat16 if model.bfloat16 else jnp.float32)
    self.attentions = nnx.List([AttentionSublayer(config, causal, dtype, key=key) for key in attention_keys])
    self.cross = CrossAttentionSublayer(config, dtype, key=cross_key) if cross else None
    self.feed_forward = FeedForwardSublayer(config, dtype, key=ff_key)
    self.residual = Residual(model.residual)

  @property
  def sublayers(self) -> tuple[AttentionSublayer | CrossAttentionSublayer | FeedForwardSublayer, ...]:
    """The sublayers in the order in which they are applied."""
    return (*self.attentions, *([] if self.cross is None else [self.cross]), self.feed_forward)

  def delta(
    self, x_BxTxD: jax.Array, key, masks: SequenceMasks, memory_BxSxD: jax.Array | None, routing, *, number: int
  ) -> tuple[jax.Array, Any]:
    """Returns what a sublayer adds to the residual streams at all positions, and its routing.

    Args:
      x_BxTxD: the stream that the sublayer reads.
      key: random key of the layer; None for evaluation.
      masks: masks of the sequence and of the memory.
      memory_BxSxD: input of cross-attention; None without cross-attention.
      routing: routing of an earlier call to repeat; None to make new choices.
      number: index of the sublayer.
    """
    key, x_BxTxD = fold_key(key, number), split_by_example(x_BxTxD)
    delta_BxTxD, routing = self.sublayers[number](x_BxTxD, masks, memory_BxSxD, key=key, routing=routing)
    return self.residual.round(split_by_example(delta_BxTxD)), routing

  def init_cache(self, batch: int, capacity: int, memory: jax.Array | None, masks: SequenceMasks) -> tuple:
    """Returns a cache for each sublayer."""
    return tuple(sublayer.init_cache(batch, capacity, memory, masks) for sublayer in self.sublayers)

  def prefill(self, streams: Streams, length_B: jax.Array, capacity: int) -> tuple[Streams, tuple]:
    """Computes all positions of the streams BxTxD and the caches after the first `length_B` of them."""
    caches = []
    for sublayer in self.sublayers:
      delta_BxTxD, cache = sublayer.prefill(streams[-1], length_B, capacity)
      streams = add(streams, self.residual.round(delta_BxTxD))
      caches.append(cache)
    return streams, tuple(caches)

  def step(self, streams: Streams, caches: tuple, filled: FilledSlots) -> tuple[Streams, tuple]:
    """Computes one position of the streams BxD; `filled` has the filled slots of the caches."""
    new_caches = []
    for sublayer, cache in zip(self.sublayers, caches, strict=True):
      delta_BxD, cache = sublayer.step(streams[-1], cache, filled)
      streams = add(streams, self.residual.round(delta_BxD))
      new_caches.append(cache)
    return streams, tuple(new_caches)
