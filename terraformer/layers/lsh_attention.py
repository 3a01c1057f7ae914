"""LSH attention: a query sees the keys whose hashes are near its own (Reformer, Kitaev et al., 2020).

B batch, T time, P slots of the cache, D d_model, H heads, G = B H, K head width, R rounds, S slots per bucket, I = R S.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import BlockConfig
from terraformer.layers.make import make_projection
from terraformer.ops.attention import dot_product_attention, full_attention
from terraformer.ops.cache_slots import FilledSlots
from terraformer.ops.constrain import split_by_head
from terraformer.ops.keys import split_key
from terraformer.ops.kv_cache import ROWS, KVCache
from terraformer.ops.lsh import lsh_attention
from terraformer.ops.lsh_hash import fixed_rotations, hash_queries, make_rotations
from terraformer.ops.recent_keys import RecentKeys, add_position, empty_recent_keys, recent_keys_of
from terraformer.ops.shared_qk import attend_to_others, shared_qk_attention, unit_keys

# Queries per chunk when a query sees the whole sequence.
_QUERY_CHUNK = 512


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LSHCache:
  """The cache of LSH attention. It can grow as long as queries see the whole of it.

  Attributes:
    kv: keys of length 1 (in a cache of at most `plain_below` positions, the queries themselves), in rows, and values.
    recent: the most recent positions in every bucket; None if queries see the whole cache.
    projection, output: caches of the projection.
  """

  kv: KVCache
  recent: RecentKeys | None
  projection: Any
  output: Any


class LSHAttention(nnx.Module):
  """Multi-head attention within sorted buckets, where the queries, scaled to length 1, are also the keys.

  In sequences and caches of at most `full_below` positions, a query sees all positions. In those of at most
  `plain_below` positions, attention is that of `layers.attention.Attention`, with the unscaled queries as keys.

  With a random key (training), the hash directions are sampled from it; without one, they come from the config's seed.
  If the config does not set `n_buckets`, the number of buckets depends on the sequence's length in `__call__`, and on
  the capacity in `prefill` and `step`; if it does, all three hash alike.
  """

  def __init__(self, config: BlockConfig, causal: bool, *, key: jax.Array):
    self.projection = make_projection(config, key=key)
    self.config = config.attention
    self.head_shape = (config.n_heads, config.d_model // config.n_heads)
    self.causal = causal

  def _hash(self, q_BxHxTxK: jax.Array, factors: tuple[int, ...], key: jax.Array | None = None) -> jax.Array:
    """Returns the buckets BxHxRxT, in the smallest unsigned type that holds them."""
    sizes = (*self.head_shape, self.config.n_rounds, factors)
    rotations_HxKxRxF = fixed_rotations(self.config.seed, *sizes) if key is None else make_rotations(key, *sizes)
    hash_heads = jax.vmap(lambda q_TxK, rotations_KxRxF: hash_queries(q_TxK, rotations_KxRxF, factors))
    buckets_BxHxRxT = jax.vmap(hash_heads, (0, None))(q_BxHxTxK, jnp.asarray(rotations_HxKxRxF))
    last = math.prod(factors) - 1
    return buckets_BxHxRxT.astype(jnp.uint8 if last < 2**8 else jnp.uint16 if last < 2**16 else jnp.uint32)

  def _attend_whole(self, q_BxTxHxK, v_BxTxHxK, real_BxT, segment_BxT=None, key: jax.Array | None = None) -> jax.Array:
    return shared_qk_attention(
      q_BxTxHxK,
      v_BxTxHxK,
      real_BxT,
      segment_BxT,
      causal=self.causal,
      query_chunk=_QUERY_CHUNK,
      rate=self.config.dropout,
      key=key,
    )

  def _attend_plainly(
    self, q_BxTxHxK, v_BxTxHxK, real_BxT, segment_BxT=None, key: jax.Array | None = None
  ) -> jax.Array:
    return full_attention(
      q_BxTxHxK,
      q_BxTxHxK,
      v_BxTxHxK,
      real_BxT,
      causal=self.causal,
      segments=None if segment_BxT is None else (segment_BxT, segment_BxT),
      query_chunk=_QUERY_CHUNK,
      rate=self.config.dropout,
      key=key,
    )

  def _attend_in_buckets(
    self, q_BxHxTxK, v_BxTxHxK, buckets_BxHxRxT, factors, real_BxT, segment_BxT=None, key: jax.Array | None = None
  ) -> jax.Array:
    y_BxHxTxK = lsh_attention(
      q_BxHxTxK,
      v_BxTxHxK.swapaxes(1, 2),
      buckets_BxHxRxT,
      real_BxT,
      segment_BxT,
      n_buckets=math.prod(factors),
      chunk_length=self.config.chunk_length,
      chunks_before=self.config.chunks_before,
      chunks_after=0 if self.causal else self.config.chunks_after,
      causal=self.causal,
      rate=self.config.dropout,
      key=key,
    )
    return y_BxHxTxK.swapaxes(1, 2)

  def __call__(
    self,
    x_BxTxD: jax.Array,
    *,
    real_BxT: jax.Array | None = None,
    segment_BxT: jax.Array | None = None,
    key: jax.Array | None = None,
    routing: jax.Array | None = None,
  ) -> tuple[jax.Array, jax.Array | None]:
    """Computes all positions.

    Args:
      x_BxTxD: input.
      real_BxT: False at padding, which no position sees; None if there is no padding.
      segment_BxT: segments of packed rows, which do not see each other; else None.
      key: random key for the hashes and dropout; None for evaluation.
      routing: buckets BxHxRxT to repeat; None to hash the queries.

    Returns:
      BxTxD, and the buckets BxHxRxT as routing, or None if a query sees all keys.
    """
    q_BxTxHxK, _, v_BxTxHxK = self.projection(x_BxTxD, segment_BxT)
    q_BxTxHxK, v_BxTxHxK = split_by_head(q_BxTxHxK), split_by_head(v_BxTxHxK)
    length = x_BxTxD.shape[1]
    hash_key, dropout_key = split_key(key, 2)
    if length <= self.config.plain_below:
      y_BxTxHxK = self._attend_plainly(q_BxTxHxK, v_BxTxHxK, real_BxT, segment_BxT, dropout_key)
      return self.projection.project_output(y_BxTxHxK, segment_BxT), None
    if length <= self.config.full_below:
      y_BxTxHxK = self._attend_whole(q_BxTxHxK, v_BxTxHxK, real_BxT, segment_BxT, dropout_key)
      return self.projection.project_output(y_BxTxHxK, segment_BxT), None
    q_BxHxTxK, factors = q_BxTxHxK.swapaxes(1, 2), self.config.bucket_factors(length)
    buckets_BxHxRxT = self._hash(q_BxHxTxK, factors, hash_key) if routing is None else routing
    y_BxTxHxK = self._attend_in_buckets(
      q_BxHxTxK, v_BxTxHxK, buckets_BxHxRxT, factors, real_BxT, segment_BxT, dropout_key
    )
    return self.projection.project_output(y_BxTxHxK, segment_BxT), buckets_BxHxRxT

  def init_cache(self, batch: int, capacity: int) -> LSHCache:
    """Returns an empty cache for `capacity` positions."""
    recent = None
    if capacity > max(self.config.full_below, self.config.plain_below):
      n_buckets = math.prod(self.config.bucket_factors(capacity))
      recent = empty_recent_keys(batch, self.head_shape[0], self.config.n_rounds, n_buckets, self.config.window)
    kv = KVCache.empty(batch, *self.head_shape, capacity, ROWS)
    return LSHCache(kv, recent, self.projection.init_cache(batch), self.projection.init_output_cache(batch))

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array, capacity: int) -> tuple[jax.Array, LSHCache]:
    """Computes all positions and the cache after the first `length_B` of them; `capacity` is at least T.

    Positions from `length_B` on are padding: no query sees them, and their results are arbitrary.
    """
    (q_BxTxHxK, _, v_BxTxHxK), projection = self.projection.prefill(x_BxTxD, length_B)
    q_BxHxTxK, length, recent = q_BxTxHxK.swapaxes(1, 2), x_BxTxD.shape[1], None
    real_BxT = jnp.arange(length) < length_B[:, None]
    if capacity <= self.config.plain_below:
      y_BxTxHxK = self._attend_plainly(q_BxTxHxK, v_BxTxHxK, real_BxT)
      y_BxTxD, output = self.projection.output_prefill(y_BxTxHxK, length_B)
      kv = KVCache.from_positions(q_BxTxHxK, v_BxTxHxK, capacity, ROWS)
      return y_BxTxD, LSHCache(kv, None, projection, output)
    if capacity > self.config.full_below:
      factors = self.config.bucket_factors(capacity)
      buckets_BxHxRxT = self._hash(q_BxHxTxK, factors)
      recent = recent_keys_of(buckets_BxHxRxT, length_B, math.prod(factors), self.config.window)
    if length <= self.config.full_below:
      y_BxTxHxK = self._attend_whole(q_BxTxHxK, v_BxTxHxK, real_BxT)
    else:
      y_BxTxHxK = self._attend_in_buckets(q_BxHxTxK, v_BxTxHxK, buckets_BxHxRxT, factors, real_BxT)
    y_BxTxD, output = self.projection.output_prefill(y_BxTxHxK, length_B)
    kv = KVCache.from_positions(unit_keys(q_BxTxHxK), v_BxTxHxK, capacity, ROWS)
    return y_BxTxD, LSHCache(kv, recent, projection, output)

  def step(self, x_BxD: jax.Array, cache: LSHCache, filled: FilledSlots) -> tuple[jax.Array, LSHCache]:
    """Computes one position. The cache must have a free slot for it.

    In a cache of at most `full_below` or `plain_below` positions, it sees all filled slots. In a larger one, it sees
    the last `window` positions of its bucket in each round, whatever the chunks of `__call__` would be; a position
    found in two rounds counts twice. The cost does not depend on the capacity. The position sees itself only if it
    sees no other, except in a cache of at most `plain_below` positions, where it always does.
    """
    (q_BxHxK, _, v_BxHxK), projection = self.projection.step(x_BxD, cache.projection)
    (batch, n_heads, head_width), capacity = q_BxHxK.shape, cache.kv.capacity
    if capacity <= self.config.plain_below:
      kv = cache.kv.append(q_BxHxK, v_BxHxK, filled.next_slot)
      k_BxHxPxK, v_BxHxPxK = (
        seen.reshape(batch, n_heads, capacity, head_width).astype(jnp.float32) for seen in (kv.k, kv.v_GxPxK)
      )
      mask_Bx1xP = filled.advanced().mask(capacity)[:, None]
      y_Bx1xHxK = dot_product_attention(q_BxHxK[:, None], k_BxHxPxK, v_BxHxPxK, mask_Bx1xP)
      y_BxD, output = self.projection.output_step(y_Bx1xHxK[:, 0], cache.output)
      return y_BxD, LSHCache(kv, None, projection, output)
    kv = cache.kv.append(unit_keys(q_BxHxK), v_BxHxK, filled.next_slot)
    if cache.recent is None:
      recent, seen_k, seen_v = None, kv.k, kv.v_GxPxK
      mask = filled.mask(capacity)[:, None, None]
    else:
      bucket_BxHxR = self._hash(q_BxHxK[:, :, None], self.config.bucket_factors(capacity))[..., 0].astype(jnp.int32)
      slot_B = jnp.broadcast_to(filled.next_slot, batch)
      recent, position_BxHxRxS, filled_BxHxRxS = add_position(cache.recent, bucket_BxHxR, slot_B, capacity)
      position_GxIx1 = position_BxHxRxS.reshape(batch * n_heads, -1, 1)
      seen_k = jnp.take_along_axis(kv.k, position_GxIx1, axis=1, mode='promise_in_bounds')
      seen_v = jnp.take_along_axis(kv.v_GxPxK, position_GxIx1, axis=1, mode='promise_in_bounds')
      mask = filled_BxHxRxS.reshape(batch, n_heads, 1, -1)
    seen_k, seen_v = (seen.reshape(batch, n_heads, -1, head_width).astype(jnp.float32) for seen in (seen_k, seen_v))
    y_Bx1xHxK = attend_to_others(q_BxHxK[:, None], seen_k, seen_v, v_BxHxK[:, None], mask)
    y_BxD, output = self.projection.output_step(y_Bx1xHxK[:, 0], cache.output)
    return y_BxD, LSHCache(kv, recent, projection, output)
