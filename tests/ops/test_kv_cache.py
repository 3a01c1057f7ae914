"""B 2, T 3, H 2, K 4; a capacity of 5 slots."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.ops.kv_cache import COLUMNS, ROWS, KVCache, cast_caches, extend_caches

by_layout = pytest.mark.parametrize('k_axis', [ROWS, COLUMNS])


def _keys_and_values(seed=0):
  return np.random.default_rng(seed).normal(size=(2, 2, 3, 2, 4)).astype(np.float32)


def _slots(x, axis):
  """Returns the vectors in the cache, B x H x P x K."""
  x_GxPxK = np.asarray(x if axis == ROWS else x.swapaxes(1, 2), np.float32)
  return x_GxPxK.reshape(2, 2, *x_GxPxK.shape[1:])


@by_layout
def test_positions_are_in_the_first_slots_of_a_cache(k_axis):
  k_BxTxHxK, v_BxTxHxK = _keys_and_values()
  cache = KVCache.from_positions(k_BxTxHxK, v_BxTxHxK, 5, k_axis)
  for found, expected in ((_slots(cache.k, k_axis), k_BxTxHxK), (_slots(cache.v_GxPxK, ROWS), v_BxTxHxK)):
    np.testing.assert_array_equal(found[:, :, :3], expected.swapaxes(1, 2))
    assert found.shape[2] == cache.capacity == 5 and not found[:, :, 3:].any()


@by_layout
def test_appending_positions_gives_the_cache_of_all_positions(k_axis):
  k_BxTxHxK, v_BxTxHxK = _keys_and_values()
  cache = KVCache.empty(2, 2, 4, 5, k_axis)
  for slot in range(3):
    cache = cache.append(k_BxTxHxK[:, slot], v_BxTxHxK[:, slot], jnp.int32(slot))
  jax.tree.map(np.testing.assert_array_equal, cache, KVCache.from_positions(k_BxTxHxK, v_BxTxHxK, 5, k_axis))


@by_layout
def test_appended_vectors_are_cast_to_the_type_of_the_cache(k_axis):
  k_BxTxHxK, v_BxTxHxK = _keys_and_values()
  cache = KVCache.empty(2, 2, 4, 5, k_axis).astype(jnp.bfloat16)
  cache = cache.append(k_BxTxHxK[:, 0], v_BxTxHxK[:, 0], jnp.int32(4))
  assert cache.k.dtype == cache.v_GxPxK.dtype == jnp.bfloat16
  np.testing.assert_array_equal(_slots(cache.k, k_axis)[:, :, 4], k_BxTxHxK[:, 0].astype(jnp.bfloat16))


def test_only_the_caches_of_a_tree_are_extended_and_cast():
  caches = [KVCache.from_positions(*_keys_and_values(), 3, k_axis) for k_axis in (ROWS, COLUMNS)]
  tree = {'layers': tuple(caches), 'other': jnp.ones((4, 3)), 'none': None}
  found = cast_caches(extend_caches(tree, 2), jnp.bfloat16)
  assert [cache.capacity for cache in found['layers']] == [5, 5]
  assert {x.dtype for x in jax.tree.leaves(found['layers'])} == {jnp.dtype(jnp.bfloat16)}
  assert found['other'] is tree['other'] and found['none'] is None
