"""B 2 examples, T 5 queries, P 7 keys, H 3 heads, K 8 wide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.ops.attention import attention_mask, by_query_chunk, dot_product_attention, full_attention


def _inputs(seed):
  rng = np.random.default_rng(seed)
  q_BxTxHxK = rng.normal(size=(2, 5, 3, 8)).astype(np.float32)
  k_BxHxPxK, v_BxHxPxK = rng.normal(size=(2, 2, 3, 7, 8)).astype(np.float32)
  mask_BxTxP = rng.random((2, 5, 7)) < 0.6
  mask_BxTxP[:, :, 0] = True
  return q_BxTxHxK, k_BxHxPxK, v_BxHxPxK, mask_BxTxP


def _slow(q_BxTxHxK, k_BxHxPxK, v_BxHxPxK, mask_BxTxP):
  y_BxTxHxK = np.zeros_like(q_BxTxHxK)
  for b, t, h in np.ndindex(q_BxTxHxK.shape[:3]):
    seen = mask_BxTxP[b, t]
    weight = np.exp(k_BxHxPxK[b, h, seen] @ q_BxTxHxK[b, t, h] / np.sqrt(8))
    y_BxTxHxK[b, t, h] = weight @ v_BxHxPxK[b, h, seen] / weight.sum()
  return y_BxTxHxK


@pytest.mark.parametrize('seed', range(3))
def test_attention_averages_the_visible_values(seed):
  inputs = _inputs(seed)
  np.testing.assert_allclose(dot_product_attention(*inputs), _slow(*inputs), atol=1e-5)


def test_without_a_mask_every_key_is_visible():
  q, k, v, mask = _inputs(0)
  expected = dot_product_attention(q, k, v, np.ones_like(mask))
  np.testing.assert_array_equal(dot_product_attention(q, k, v, None), expected)


def test_the_mask_may_be_shared_by_the_batch():
  q, k, v, mask = _inputs(0)
  expected = dot_product_attention(q, k, v, np.stack([mask[0]] * 2))
  np.testing.assert_array_equal(dot_product_attention(q, k, v, mask[:1]), expected)


def test_a_hidden_key_gets_exactly_no_gradient():
  q, k, v, mask = _inputs(0)
  mask[:, :, 3] = False
  d_k, d_v = jax.grad(lambda k, v: jnp.sin(dot_product_attention(q, k, v, mask)).sum(), argnums=(0, 1))(k, v)
  assert not np.any(d_k[:, :, 3]) and not np.any(d_v[:, :, 3])


def test_a_query_that_sees_no_key_gets_the_average_of_all_values():
  q, k, v, mask = _inputs(0)
  y_BxTxHxK = dot_product_attention(q, k, v, np.zeros_like(mask))
  np.testing.assert_allclose(y_BxTxHxK[:, 0], v.mean(2), atol=1e-6)


REAL_BXP = np.arange(7) < np.asarray([[7], [3]])
QUERY_T = np.asarray([4, 0, 2])


@pytest.mark.parametrize(
  ('real_BxP', 'causal', 'expected'),
  [
    (REAL_BXP, True, REAL_BXP[:, None] & (np.arange(7) <= QUERY_T[:, None])),
    (REAL_BXP, False, REAL_BXP[:, None]),
    (None, True, (np.arange(7) <= QUERY_T[:, None])[None]),
  ],
)
def test_visible_keys_are_real_and_not_later_than_a_causal_query(real_BxP, causal, expected):
  np.testing.assert_array_equal(attention_mask(QUERY_T, 7, real_BxP, causal), expected)


def test_the_mask_is_none_if_every_key_is_visible():
  assert attention_mask(QUERY_T, 7, None, causal=False) is None


@pytest.mark.parametrize('query_chunk', [0, 2, 5])
def test_a_chunk_of_queries_gets_its_positions_and_its_own_key(query_chunk):
  # Each result is 100 times the query's position plus an integer below 100 that is sampled from the chunk's key.
  key, sample = jax.random.key(0), lambda key: jax.random.randint(key, (), 0, 100)
  attend = lambda q, position_C, key: jnp.broadcast_to((100 * position_C + sample(key))[:, None, None], q.shape)  # noqa: E731
  y_BxTxHxK = by_query_chunk(attend, np.zeros((2, 5, 3, 8), np.float32), query_chunk, key)
  chunk_T = np.arange(5) // 2 if query_chunk == 2 else np.zeros(5)
  sampled_T = [sample(jax.random.fold_in(key, int(chunk))) for chunk in chunk_T]
  np.testing.assert_array_equal(y_BxTxHxK[1, :, 2, 7], 100 * np.arange(5) + sampled_T)


def test_every_chunk_of_queries_drops_weights_with_its_own_key():
  q, k, v, _ = _inputs(0)
  key = jax.random.key(0)
  found = full_attention(
    q, k.swapaxes(1, 2), v.swapaxes(1, 2), REAL_BXP, causal=False, query_chunk=2, rate=0.5, key=key
  )
  for chunk, queries in enumerate((slice(0, 2), slice(2, 4))):
    chunk_key = jax.random.fold_in(key, chunk)
    expected = dot_product_attention(q[:, queries], k, v, REAL_BXP[:, None], rate=0.5, key=chunk_key)
    np.testing.assert_allclose(found[:, queries], expected, atol=1e-6)


@pytest.mark.parametrize('query_chunk', [0, 2])
def test_a_query_without_keys_gets_zeros_if_requested(query_chunk):
  q, k, v, _ = _inputs(0)
  none_BxP = REAL_BXP & [[True], [False]]
  options = {'causal': False, 'query_chunk': query_chunk}
  one, other = (
    full_attention(q, k.swapaxes(1, 2), v.swapaxes(1, 2), none_BxP, zero_if_no_key=zeros, **options)
    for zeros in (True, False)
  )
  assert not np.any(one[1]) and np.any(other[1])
  np.testing.assert_array_equal(one[0], other[0])
