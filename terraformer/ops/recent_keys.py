"""The most recent positions in every bucket, which LSH attention looks up while decoding.

B batch, H heads, R rounds, N buckets, S slots per bucket (its window and one more), T time.
"""

import dataclasses

import jax
import jax.numpy as jnp

from terraformer.ops.lsh_hash import sort_by_bucket


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RecentKeys:
  """Ring buffers of positions, one per bucket. An update writes one entry per head and round, whatever the length.

  Attributes:
    position_BxHxRxNxS: positions; number i of a bucket is in slot i mod S.
    count_BxHxRxN: number of positions added to the bucket so far.
  """

  position_BxHxRxNxS: jax.Array
  count_BxHxRxN: jax.Array


def empty_recent_keys(batch: int, n_heads: int, n_rounds: int, n_buckets: int, window: int) -> RecentKeys:
  """Returns empty buckets."""
  shape = (batch, n_heads, n_rounds, n_buckets)
  return RecentKeys(jnp.zeros((*shape, window + 1), jnp.int32), jnp.zeros(shape, jnp.int32))


def recent_keys_of(buckets_BxHxRxT: jax.Array, length_B: jax.Array, n_buckets: int, window: int) -> RecentKeys:
  """Returns the buckets after the first `length_B` positions, added all at once.

  Args:
    buckets_BxHxRxT: bucket of each position, below `n_buckets`.
    length_B: number of positions to add.
    n_buckets: N.
    window: number of most recent positions in its bucket that a query sees.
  """
  counts_BxT = jnp.arange(buckets_BxHxRxT.shape[-1]) < length_B[:, None]
  buckets_BxHxRxT = jnp.where(counts_BxT[:, None, None], buckets_BxHxRxT.astype(jnp.int32), n_buckets)
  order_BxHxRxT = sort_by_bucket(buckets_BxHxRxT, n_buckets + 1)

  def one(buckets_T, order_T):
    bound = jnp.searchsorted(buckets_T[order_T], jnp.arange(n_buckets + 1)).astype(jnp.int32)
    start_N, count_N = bound[:-1], jnp.diff(bound)
    # Slot s holds the last of the bucket's positions whose number is s mod S.
    last_Nx1 = count_N[:, None] - 1
    number_NxS = last_Nx1 - (last_Nx1 - jnp.arange(window + 1)) % (window + 1)
    position_NxS = jnp.take(order_T, start_N[:, None] + number_NxS, mode='clip')
    return jnp.where(number_NxS >= 0, position_NxS, 0), count_N

  for _ in range(3):
    one = jax.vmap(one)
  return RecentKeys(*one(buckets_BxHxRxT, order_BxHxRxT))


def add_position(
  recent: RecentKeys, bucket_BxHxR: jax.Array, position_B: jax.Array, capacity: int
) -> tuple[RecentKeys, jax.Array, jax.Array]:
  """Adds one position per example and looks up the earlier positions in its buckets.

  The write comes before the read, so the compiler updates donated buffers in place; it would copy a whole buffer that
  is read first. This is why a bucket has one more slot than its window.

  Args:
    recent: the buckets before.
    bucket_BxHxR: bucket of the position in each round.
    position_B: the position. If it is at or past `capacity`, its buckets are looked up, but it is not added.
    capacity: capacity of the cache.

  Returns:
    The new buckets; the positions BxHxRxS in the looked-up buckets; and BxHxRxS, True where such a slot is filled with
    an earlier position.
  """
  n_buckets, n_slots = recent.position_BxHxRxNxS.shape[-2:]
  entered_Bx1x1 = (position_B < capacity)[:, None, None]
  batch, n_heads, n_rounds = (jnp.arange(size) for size in bucket_BxHxR.shape)
  bucket = (batch[:, None, None], n_heads[:, None], n_rounds, bucket_BxHxR)
  written = (*bucket[:3], jnp.where(entered_Bx1x1, bucket_BxHxR, n_buckets))
  count_BxHxRxN = recent.count_BxHxRxN.at[written].add(1, mode='drop')
  earlier_BxHxR = count_BxHxRxN[bucket] - entered_Bx1x1
  slot_BxHxR = earlier_BxHxR % n_slots
  position_BxHxRxNxS = recent.position_BxHxRxNxS.at[(*written, slot_BxHxR)].set(position_B[:, None, None], mode='drop')
  slot_S = jnp.arange(n_slots)
  filled_BxHxRxS = (slot_S < earlier_BxHxR[..., None]) & (slot_S != slot_BxHxR[..., None])
  return RecentKeys(position_BxHxRxNxS, count_BxHxRxN), position_BxHxRxNxS[bucket], filled_BxHxRxS
