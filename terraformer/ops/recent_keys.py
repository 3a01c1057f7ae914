"""The most recent positions of every bucket: what LSH attention looks up where tokens come one by one.

B batch, H heads, R rounds, N buckets, S slots of a bucket (its window and one more), T time.
"""

import dataclasses

import jax
import jax.numpy as jnp

from terraformer.ops.lsh_hash import sort_by_bucket


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RecentKeys:
  """Rings of positions, one a bucket; an update writes one entry a head and round, whatever the length.

  Attributes:
    position_BxHxRxNxS: position number i of a bucket stands in slot i mod S.
    count_BxHxRxN: positions that the bucket has had.
  """

  position_BxHxRxNxS: jax.Array
  count_BxHxRxN: jax.Array


def no_keys(batch: int, n_heads: int, n_rounds: int, n_buckets: int, window: int) -> RecentKeys:
  """Empty buckets."""
  shape = (batch, n_heads, n_rounds, n_buckets)
  return RecentKeys(jnp.zeros((*shape, window + 1), jnp.int32), jnp.zeros(shape, jnp.int32))


def keys_of(buckets_BxHxRxT: jax.Array, length_B: jax.Array, n_buckets: int, window: int) -> RecentKeys:
  """What the first `length_B` positions leave, entered at once.

  Args:
    buckets_BxHxRxT: of all positions, below `n_buckets`.
    length_B: positions that count.
    n_buckets: N.
    window: most recent positions of a bucket that the next one of it sees.
  """
  counts_BxT = jnp.arange(buckets_BxHxRxT.shape[-1]) < length_B[:, None]
  buckets_BxHxRxT = jnp.where(counts_BxT[:, None, None], buckets_BxHxRxT.astype(jnp.int32), n_buckets)
  order_BxHxRxT = sort_by_bucket(buckets_BxHxRxT, n_buckets + 1)

  def one(buckets_T, order_T):
    bound = jnp.searchsorted(buckets_T[order_T], jnp.arange(n_buckets + 1)).astype(jnp.int32)
    start_N, count_N = bound[:-1], jnp.diff(bound)
    # A slot holds the last of the bucket's positions whose number leaves it as remainder.
    last_Nx1 = count_N[:, None] - 1
    number_NxS = last_Nx1 - (last_Nx1 - jnp.arange(window + 1)) % (window + 1)
    position_NxS = jnp.take(order_T, start_N[:, None] + number_NxS, mode='clip')
    return jnp.where(number_NxS >= 0, position_NxS, 0), count_N

  for _ in range(3):
    one = jax.vmap(one)
  return RecentKeys(*one(buckets_BxHxRxT, order_BxHxRxT))


def enter(
  recent: RecentKeys, bucket_BxHxR: jax.Array, position_B: jax.Array, capacity: int
) -> tuple[RecentKeys, jax.Array, jax.Array]:
  """Enters one position an example and looks up those that its buckets had before.

  Everything is written before it is read: the compiler then updates donated buffers in place, where it would copy all
  of a buffer that is read first. That is why a bucket has a slot more than its window.

  Args:
    recent: what has been entered.
    bucket_BxHxR: the position's bucket in each round.
    position_B: the position; one at or behind `capacity` is looked up for and not entered.
    capacity: of the cache.

  Returns:
    The new rings, the positions BxHxRxS found, and which of these slots are filled, that of the entered one not.
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
