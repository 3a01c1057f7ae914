"""B 2 examples, T 7 positions, H 3 heads, K 8 wide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.ops.shared_qk import shared_qk_attention, unit_keys

by_direction = pytest.mark.parametrize('causal', [True, False])


def _inputs(seed=0):
  rng = np.random.default_rng(seed)
  q_BxTxHxK, v_BxTxHxK = rng.normal(size=(2, 2, 7, 3, 8)).astype(np.float32)
  real_BxT = rng.random((2, 7)) < 0.7
  real_BxT[0, 0] = False
  return q_BxTxHxK, v_BxTxHxK, real_BxT


def _slow(q, v, real_BxT, causal):
  y = v.copy()
  for b, t, h in np.ndindex(v.shape[:3]):
    seen = [s for s in range(7) if real_BxT[b, s] and s != t and (s < t or not causal)]
    if seen:
      k = q[b, seen, h] / np.sqrt(np.square(q[b, seen, h]).mean(-1, keepdims=True) + 1e-6) / np.sqrt(8)
      weight = np.exp(k @ q[b, t, h])
      y[b, t, h] = weight @ v[b, seen, h] / weight.sum()
  return y


@by_direction
def test_a_query_averages_the_other_values_it_sees(causal):
  q, v, real_BxT = _inputs()
  np.testing.assert_allclose(
    shared_qk_attention(q, v, real_BxT, causal=causal), _slow(q, v, real_BxT, causal), atol=1e-5
  )


def test_a_query_that_sees_no_other_key_gets_its_own_value():
  q, v, _ = _inputs()
  alone = np.zeros((2, 7), bool)
  np.testing.assert_array_equal(shared_qk_attention(q, v, alone, causal=False), v)


def test_a_query_without_other_keys_has_the_gradient_of_its_value():
  q, v, _ = _inputs()
  d_q, d_v = jax.grad(lambda q, v: shared_qk_attention(q, v, causal=True)[:, 0].sum(), (0, 1))(q, v)
  np.testing.assert_array_equal(d_q, np.zeros_like(q))
  np.testing.assert_array_equal(d_v, np.broadcast_to((np.arange(7) == 0)[:, None, None], v.shape))


@by_direction
def test_chunks_of_queries_give_the_same_result(causal):
  q, v, real_BxT = _inputs()
  expected = shared_qk_attention(q, v, real_BxT, causal=causal)
  np.testing.assert_allclose(shared_qk_attention(q, v, real_BxT, causal=causal, query_chunk=3), expected, atol=1e-6)


def test_keys_have_length_1_in_every_type():
  q_BxTxHxK, _, _ = _inputs()
  for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 1e-2)):
    k_BxTxHxK = unit_keys(jnp.asarray(q_BxTxHxK, dtype))
    assert k_BxTxHxK.dtype == dtype
    np.testing.assert_allclose(np.linalg.norm(k_BxTxHxK.astype(np.float32), axis=-1), 1, atol=tolerance)


def test_dropout_scales_the_weights_it_keeps():
  q, v, _ = _inputs()
  kept = shared_qk_attention(0 * q, np.ones_like(v), causal=False, rate=0.5, key=jax.random.key(0))[..., 0] * 3
  # Six equal weights, each dropped or doubled.
  np.testing.assert_allclose(kept, np.round(kept), atol=1e-5)
  assert 2.4 < kept.mean() < 3.6


def test_one_key_drops_the_same_weights():
  q, v, _ = _inputs()
  one, other = (shared_qk_attention(q, v, causal=True, rate=0.5, key=jax.random.key(0)) for _ in range(2))
  np.testing.assert_array_equal(one, other)
