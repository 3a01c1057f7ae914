"""Hashes queries into buckets by random directions, and sorts positions by bucket (Reformer, Kitaev et al., 2020).

T time, K head width, H heads, R rounds, F directions of a hash or of one of its factors, C queries per block.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# Queries that are hashed at once.
_BLOCK = 512


def make_rotations(key: jax.Array, n_heads: int, width: int, n_rounds: int, factors: tuple[int, ...]) -> jax.Array:
  """Returns random directions of the hashes, HxKxRxF, standard normal, where F is half the sum of the factors.

  All examples share them.
  """
  return jax.random.normal(key, (n_heads, width, n_rounds, sum(factors) // 2))


@functools.cache
def fixed_rotations(seed: int, n_heads: int, width: int, n_rounds: int, factors: tuple[int, ...]) -> np.ndarray:
  """Returns directions like `make_rotations`, as a constant of the compiled program: no sampling for each token."""
  shape = (n_heads, width, n_rounds, sum(factors) // 2)
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _first_largest(x_RxFxC: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the largest value along F and its first index, RxC each; argmax is several times slower on a CPU."""
  largest_RxC = x_RxFxC.max(1)
  index_RxFxC = jax.lax.broadcasted_iota(jnp.int32, x_RxFxC.shape, 1)
  return largest_RxC, jnp.where(x_RxFxC == largest_RxC[:, None], index_RxFxC, x_RxFxC.shape[1]).min(1)


def _nearest(x_RxFxC: jax.Array) -> jax.Array:
  """Returns the index of the nearest direction, RxC, counting first the directions and then their opposites."""
  (near_RxC, index_RxC), (far_RxC, opposite_RxC) = _first_largest(x_RxFxC), _first_largest(-x_RxFxC)
  return jnp.where(near_RxC >= far_RxC, index_RxC, opposite_RxC + x_RxFxC.shape[1])


def hash_queries(q_TxK: jax.Array, rotations_KxRxF: jax.Array, factors: tuple[int, ...]) -> jax.Array:
  """Returns the bucket of each query in each round, RxT, int32, without a gradient.

  Each factor contributes the index of the nearest among its directions and their opposites. The bucket has these
  indices as digits; the first factor is the least significant.

  Args:
    q_TxK: queries of one head, not normalized.
    rotations_KxRxF: directions of the head, those of the first factor first.
    factors: even numbers; their product is the number of buckets.
  """
  q_TxK = jax.lax.stop_gradient(q_TxK).astype(jnp.float32)
  length, block = q_TxK.shape[0], min(q_TxK.shape[0], _BLOCK)

  def hash_block(start):
    q_CxK = jax.lax.dynamic_slice_in_dim(q_TxK, start, block)
    projected_RxFxC = jnp.einsum('CK,KRF->RFC', q_CxK, rotations_KxRxF, precision='highest')
    bucket_RxC, scale, first = 0, 1, 0
    for factor in factors:
      bucket_RxC += scale * _nearest(projected_RxFxC[:, first : first + factor // 2])
      scale, first = scale * factor, first + factor // 2
    return bucket_RxC

  def fill(index, buckets_RxT):
    start = jnp.minimum(index * block, length - block)  # the last block may overlap the previous one
    return jax.lax.dynamic_update_slice_in_dim(buckets_RxT, hash_block(start), start, axis=1)

  empty_RxT = jnp.zeros((rotations_KxRxF.shape[1], length), jnp.int32)
  return jax.lax.fori_loop(0, -(-length // block), fill, empty_RxT)


def sort_by_bucket(buckets_xT: jax.Array, n_buckets: int) -> jax.Array:
  """Returns the positions sorted by bucket, then by position: ...xT, int32.

  Args:
    buckets_xT: buckets, from 0 to `n_buckets` - 1.
    n_buckets: number of buckets; if a bucket and a position fit into 32 bits, sorting is six times faster.
  """
  length = buckets_xT.shape[-1]
  position_xT = jax.lax.broadcasted_iota(jnp.uint32, buckets_xT.shape, buckets_xT.ndim - 1)
  if n_buckets * length <= 2**32:
    return (jnp.sort(buckets_xT.astype(jnp.uint32) * length + position_xT) % length).astype(jnp.int32)
  _, order_xT = jax.lax.sort((buckets_xT, position_xT), num_keys=1, is_stable=True)
  return order_xT.astype(jnp.int32)
