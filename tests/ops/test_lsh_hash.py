"""T positions, R rounds; the reference has 16 vectors of width 8."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.ops.lsh_hash import fixed_rotations, hash_queries, make_rotations, sort_by_bucket
from tests.reference.vectors import load


@pytest.mark.parametrize('tag', ['b4_h1', 'b8_h2', 'b4x6_h3'])
def test_buckets_agree_with_the_reference(tag):
  r = load('lsh_hash')
  factors = tuple(int(factor) for factor in r[f'{tag}_factors'])
  np.testing.assert_array_equal(hash_queries(r['vecs'], r[f'{tag}_rotations'], factors), r[f'{tag}_buckets'])


def test_each_example_may_have_its_own_rotations():
  r = load('pure_lsh_attention')
  hashed = jax.vmap(lambda q, rotations: hash_queries(q, rotations, (8,)))(r['causal_h2_qk'], r['causal_h2_rotations'])
  np.testing.assert_array_equal(hashed + 8 * np.arange(2)[:, None], r['causal_h2_buckets'].reshape(4, 2, 16))


def test_a_long_sequence_is_hashed_like_a_short_one():
  q_TxK = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32)
  rotations = make_rotations(jax.random.key(0), 1, 4, 2, (6,))[0]
  expected = np.concatenate([hash_queries(q_TxK[part], rotations, (6,)) for part in np.split(np.arange(5000), 2)], 1)
  np.testing.assert_array_equal(hash_queries(q_TxK, rotations, (6,)), expected)


def test_no_gradient_flows_through_a_hash():
  rotations = make_rotations(jax.random.key(0), 1, 4, 2, (6,))[0]
  _, tangent = jax.jvp(lambda q: hash_queries(q, rotations, (6,)), (jnp.ones((3, 4)),), (jnp.ones((3, 4)),))
  assert tangent.dtype == jax.dtypes.float0


@pytest.mark.parametrize('make', [make_rotations, fixed_rotations])
def test_rotations_are_standard_normal(make):
  seed = jax.random.key(0) if make is make_rotations else 0
  rotations = np.asarray(make(seed, 3, 32, 2, (8, 10)))
  assert rotations.shape == (3, 32, 2, 9)
  np.testing.assert_allclose([rotations.mean(), rotations.std()], [0, 1], atol=0.1)


def test_fixed_rotations_depend_on_the_seed():
  assert np.any(fixed_rotations(0, 1, 4, 1, (4,)) != fixed_rotations(1, 1, 4, 1, (4,)))


@pytest.mark.parametrize('n_buckets', [5, 2**30], ids=['packed', 'pairs'])
def test_positions_are_sorted_by_bucket_and_then_by_position(n_buckets):
  buckets_RxT = np.random.default_rng(0).integers(0, 5, (3, 21))
  expected = np.argsort(buckets_RxT, axis=-1, kind='stable')
  np.testing.assert_array_equal(sort_by_bucket(jnp.asarray(buckets_RxT), n_buckets), expected)


def test_the_largest_bucket_that_packs_still_sorts():
  # 2**30 buckets x 4 positions use all 32 bits.
  buckets_T = jnp.asarray([2**30 - 1, 0, 2**30 - 1, 2**30 - 2])
  np.testing.assert_array_equal(sort_by_bucket(buckets_T, 2**30), [1, 3, 0, 2])
