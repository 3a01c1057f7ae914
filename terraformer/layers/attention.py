"""Full attention, causal or bidirectional.

B batch, T time, D d_model, H heads, K head width.
"""

import dataclasses
from typing import Any

import jax
from flax import nnx

from terraformer.config import BlockConfig
from terraformer.layers.make import make_projection
from terraformer.ops.attention import full_attention, one_query_attention
from terraformer.ops.cache_slots import FilledSlots
from terraformer.ops.constrain import split_by_head
from terraformer.ops.kv_cache import COLUMNS, KVCache


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionCache:
  """The cache of an attention layer.

  Attributes:
    kv: keys, in columns, and values.
    projection, output: caches of the projection.
  """

  kv: KVCache
  projection: Any
  output: Any


class Attention(nnx.Module):
  """Multi-head dot-product self-attention."""

  def __init__(self, config: BlockConfig, causal: bool, *, key: jax.Array):
    self.projection = make_projection(config, key=key)
    self.config = config.attention
    self.head_shape = (config.n_heads, config.d_model // config.n_heads)
    self.causal = causal

  def _attend(
    self, q_BxTxHxK, k_BxTxHxK, v_BxTxHxK, real_BxT: jax.Array | None, segment_BxT: jax.Array | None = None, key=None
  ) -> jax.Array:
    return full_attention(
      q_BxTxHxK,
      k_BxTxHxK,
      v_BxTxHxK,
      real_BxT,
      causal=self.causal,
      segments=None if segment_BxT is None else (segment_BxT, segment_BxT),
      query_chunk=self.config.query_chunk,
      rate=self.config.dropout,
      key=key,
    )

  def __call__(
    self,
    x_BxTxD: jax.Array,
    *,
    real_BxT: jax.Array | None = None,
    segment_BxT: jax.Array | None = None,
    key: jax.Array | None = None,
    routing: None = None,
  ) -> tuple[jax.Array, None]:
    """Computes all positions.

    Args:
      x_BxTxD: input.
      real_BxT: False at padding, which no position sees; None if there is no padding.
      segment_BxT: segments of packed rows, which do not see each other; else None.
      key: random key for dropout; None for evaluation.
      routing: None, since full attention makes no discrete choices.

    Returns:
      BxTxD, and None for the routing.
    """
    qkv = map(split_by_head, self.projection(x_BxTxD, segment_BxT))
    return self.projection.project_output(self._attend(*qkv, real_BxT, segment_BxT, key), segment_BxT), None

  def init_cache(self, batch: int, capacity: int) -> AttentionCache:
    """Returns an empty cache for `capacity` positions."""
    kv = KVCache.empty(batch, *self.head_shape, capacity, COLUMNS)
    return AttentionCache(kv, self.projection.init_cache(batch), self.projection.init_output_cache(batch))

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array, capacity: int) -> tuple[jax.Array, AttentionCache]:
    """Computes all positions and the cache after the first `length_B` of them; `capacity` is at least T."""
    (q_BxTxHxK, k_BxTxHxK, v_BxTxHxK), projection = self.projection.prefill(x_BxTxD, length_B)
    y_BxTxHxK = self._attend(q_BxTxHxK, k_BxTxHxK, v_BxTxHxK, None)
    y_BxTxD, output = self.projection.output_prefill(y_BxTxHxK, length_B)
    return y_BxTxD, AttentionCache(KVCache.from_positions(k_BxTxHxK, v_BxTxHxK, capacity, COLUMNS), projection, output)

  def read(self, q_BxHxK: jax.Array, cache: AttentionCache, filled: FilledSlots) -> jax.Array:
    """Returns the attention of queries BxHxK to the filled slots of the cache, BxHxK."""
    return one_query_attention(q_BxHxK, cache.kv.k, cache.kv.v_GxPxK, filled.mask(cache.kv.capacity))

  def step(self, x_BxD: jax.Array, cache: AttentionCache, filled: FilledSlots) -> tuple[jax.Array, AttentionCache]:
    """Computes one position, which sees itself and the filled slots. The cache must have a free slot for it."""
    (q_BxHxK, k_BxHxK, v_BxHxK), projection = self.projection.step(x_BxD, cache.projection)
    cache = dataclasses.replace(cache, kv=cache.kv.append(k_BxHxK, v_BxHxK, filled.next_slot), projection=projection)
    y_BxD, output = self.projection.output_step(self.read(q_BxHxK, cache, filled.advanced()), cache.output)
    return y_BxD, dataclasses.replace(cache, output=output)
