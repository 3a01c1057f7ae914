"""B 2 examples, T 5 queries, P 7 keys, H 3 heads, K 8 wide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.ops.attention import dot_product_attention


def _inputs(seed):
  rng = np.random.default_rng(seed)
  q_BxTxHxK = rng.normal(size=(2, 5, 3, 8)).astype(np.float32)
  k_BxHxPxK, v_BxHxPxK = rng.normal(size=(2, 2, 3, 7, 8)).astype(np.float32)
  visible_BxTxP = rng.random((2, 5, 7)) < 0.6
  visible_BxTxP[:, :, 0] = True
  return q_BxTxHxK, k_BxHxPxK, v_BxHxPxK, visible_BxTxP


def _slow(q_BxTxHxK, k_BxHxPxK, v_BxHxPxK, visible_BxTxP):
  y_BxTxHxK = np.zeros_like(q_BxTxHxK)
  for b, t, h in np.ndindex(q_BxTxHxK.shape[:3]):
    seen = visible_BxTxP[b, t]
    weight = np.exp(k_BxHxPxK[b, h, seen] @ q_BxTxHxK[b, t, h] / np.sqrt(8))
    y_BxTxHxK[b, t, h] = weight @ v_BxHxPxK[b, h, seen] / weight.sum()
  return y_BxTxHxK


@pytest.mark.parametrize('seed', range(3))
def test_attention_averages_the_visible_values(seed):
  inputs = _inputs(seed)
  np.testing.assert_allclose(dot_product_attention(*inputs), _slow(*inputs), atol=1e-5)


def test_without_a_mask_every_key_is_visible():
  q, k, v, visible = _inputs(0)
  expected = dot_product_attention(q, k, v, np.ones_like(visible))
  np.testing.assert_array_equal(dot_product_attention(q, k, v, None), expected)


def test_the_mask_may_be_shared_by_the_batch():
  q, k, v, visible = _inputs(0)
  expected = dot_product_attention(q, k, v, np.stack([visible[0]] * 2))
  np.testing.assert_array_equal(dot_product_attention(q, k, v, visible[:1]), expected)


def test_a_hidden_key_gets_exactly_no_gradient():
  q, k, v, visible = _inputs(0)
  visible[:, :, 3] = False
  d_k, d_v = jax.grad(lambda k, v: jnp.sin(dot_product_attention(q, k, v, visible)).sum(), argnums=(0, 1))(k, v)
  assert not np.any(d_k[:, :, 3]) and not np.any(d_v[:, :, 3])


def test_a_query_that_sees_nothing_gets_the_plain_average():
  q, k, v, visible = _inputs(0)
  y_BxTxHxK = dot_product_attention(q, k, v, np.zeros_like(visible))
  np.testing.assert_allclose(y_BxTxHxK[:, 0], v.mean(2), atol=1e-6)
