"""B 3 examples, H 2 heads, R 2 rounds, N 4 buckets, a window of 3, T 17 positions."""

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.ops.recent_keys import add_position, empty_recent_keys, recent_keys_of

BUCKETS_BxHxRxT = np.random.default_rng(0).choice(4, (3, 2, 2, 17), p=[0.6, 0.2, 0.2, 0])
LENGTH_B = jnp.asarray([17, 6, 0])


@jax.jit
def _add_all(buckets_BxHxRxT, capacity):
  def advance(recent, inputs):
    bucket_BxHxR, position = inputs
    recent, position_BxHxRxS, filled_BxHxRxS = add_position(recent, bucket_BxHxR, jnp.full(3, position), capacity)
    return recent, (recent, jnp.where(filled_BxHxRxS, position_BxHxRxS, -1))

  per_position = jnp.moveaxis(buckets_BxHxRxT, -1, 0), jnp.arange(17)
  return jax.lax.scan(advance, empty_recent_keys(3, 2, 2, 4, 3), per_position)[1]


def test_a_position_finds_the_last_positions_of_its_bucket():
  _, found = _add_all(BUCKETS_BxHxRxT, 17)
  for b, h, r, t in np.ndindex(BUCKETS_BxHxRxT.shape):
    buckets_T = BUCKETS_BxHxRxT[b, h, r]
    expected = [s for s in range(t) if buckets_T[s] == buckets_T[t]][-3:]
    assert sorted(s for s in np.asarray(found)[t, b, h, r] if s >= 0) == expected


def test_adding_all_positions_at_once_is_adding_them_one_by_one():
  one_by_one, _ = _add_all(BUCKETS_BxHxRxT, 17)
  at_once = recent_keys_of(jnp.asarray(BUCKETS_BxHxRxT), LENGTH_B, 4, 3)
  for b, length in enumerate(LENGTH_B):
    for found, steps in zip(jax.tree.leaves(at_once), jax.tree.leaves(one_by_one), strict=True):
      expected = steps[length - 1, b] if length else jnp.zeros_like(steps[0, b])
      np.testing.assert_array_equal(found[b], expected)


def test_no_position_is_added_past_the_capacity():
  recent, _ = _add_all(BUCKETS_BxHxRxT, 9)
  np.testing.assert_array_equal(recent.count_BxHxRxN[-1], recent.count_BxHxRxN[8])
  np.testing.assert_array_equal(recent.position_BxHxRxNxS[-1], recent.position_BxHxRxNxS[8])


def test_a_position_past_the_capacity_finds_the_last_ones_added():
  _, found = _add_all(BUCKETS_BxHxRxT, 9)
  for b, h, r in np.ndindex(3, 2, 2):
    buckets_T = BUCKETS_BxHxRxT[b, h, r]
    expected = [s for s in range(9) if buckets_T[s] == buckets_T[16]][-3:]
    assert sorted(s for s in np.asarray(found)[16, b, h, r] if s >= 0) == expected
