"""B 2, T 9, D 24, E 5 experts of F 6 units. `test_mixture_of_experts` tests what all mixtures share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import BlockSparseFFConfig
from terraformer.layers.mixture_of_experts import BlockSparseFF
from tests.weights import build, call

CONFIG = BlockSparseFFConfig(d_ff=30, n_experts=5, temperature=0.0)
X_BXTXD = np.random.default_rng(0).normal(size=(2, 9, 24)).astype(np.float32)


def _layer(seed=0, **changes):
  return build(lambda key: BlockSparseFF(dataclasses.replace(CONFIG, **changes), 24, 0.0, key=key), seed)


def _slow(layer, mask_BxTxE):
  """Returns the sum of all experts, each multiplied by its number of the mask before the ReLU."""
  w1, w2 = np.asarray(layer.w1_ExFxD[...]), np.asarray(layer.w2_ExFxD[...])
  experts = [np.maximum(X_BXTXD @ w1[e].T * mask_BxTxE[..., e, None], 0) @ w2[e] for e in range(5)]
  return sum(experts) + np.asarray(layer.bias_D[...])


@pytest.mark.parametrize('seed', range(3))
def test_evaluation_uses_the_most_likely_expert_unscaled(seed):
  layer = _layer(seed)
  chosen_BxT = (X_BXTXD @ np.asarray(layer.router_DxE[...])).argmax(-1)
  np.testing.assert_allclose(call(layer, X_BXTXD)[0], _slow(layer, np.eye(5)[chosen_BxT]), atol=1e-4)


@pytest.mark.parametrize('seed', range(3))
def test_a_soft_call_mixes_all_experts_before_the_relu(seed):
  layer = _layer(seed, hard_probability=0.0)
  soft_BxTxE = np.asarray(jax.nn.softmax(X_BXTXD @ layer.router_DxE[...]))
  y_BxTxD, _ = call(layer, X_BXTXD, key=jax.random.key(0))
  np.testing.assert_allclose(y_BxTxD, _slow(layer, soft_BxTxE), atol=1e-4)


def test_hard_training_without_noise_has_the_value_of_evaluation():
  layer = _layer(hard_probability=1.0)
  y_BxTxD, _ = call(layer, X_BXTXD, key=jax.random.key(0))
  np.testing.assert_allclose(y_BxTxD, call(layer, X_BXTXD)[0], atol=1e-5)


def test_the_given_share_of_training_calls_is_hard_and_all_others_are_soft():
  layer = _layer(hard_probability=0.3)
  hard, soft = (call(_layer(hard_probability=p), X_BXTXD, key=jax.random.key(0))[0] for p in (1.0, 0.0))
  calls = jax.jit(lambda keys: jax.lax.map(lambda key: layer(X_BXTXD, key=key)[0], keys))
  y_CxBxTxD = np.asarray(calls(jax.random.split(jax.random.key(1), 400)))
  is_hard, is_soft = (np.abs(y_CxBxTxD - one).max((1, 2, 3)) < 1e-5 for one in (hard, soft))
  assert (is_hard ^ is_soft).all()
  # 400 samples: 0.09 is four standard deviations.
  assert abs(is_hard.mean() - 0.3) < 0.09


@jax.jit
def _router_gradients(layer):
  """Returns the router's gradient by automatic differentiation, and that of the one-hot mask passed to the softmax."""
  soft_BxTxE = jax.nn.softmax(X_BXTXD @ layer.router_DxE[...])

  def output(mask_BxTxE):
    before_BxTxExF = jnp.einsum('BTD,EFD->BTEF', X_BXTXD, layer.w1_ExFxD[...])
    hidden_BxTxExF = jax.nn.relu(before_BxTxExF * mask_BxTxE[..., None])
    return jnp.sin(jnp.einsum('BTEF,EFD->BTD', hidden_BxTxExF, layer.w2_ExFxD[...]) + layer.bias_D[...]).sum()

  d_mask_BxTxE = jax.grad(output)(jnp.eye(5)[soft_BxTxE.argmax(-1)])
  d_logits_BxTxE = soft_BxTxE * (d_mask_BxTxE - (d_mask_BxTxE * soft_BxTxE).sum(-1, keepdims=True))
  found = jax.grad(lambda layer: jnp.sin(layer(X_BXTXD, key=jax.random.key(0))[0]).sum())(layer)
  return found.router_DxE[...], jnp.einsum('BTD,BTE->DE', X_BXTXD, d_logits_BxTxE)


@pytest.mark.parametrize('seed', range(3))
def test_the_router_of_a_hard_call_learns_straight_through(seed):
  found, expected = _router_gradients(_layer(seed, hard_probability=1.0))
  np.testing.assert_allclose(found, expected, atol=1e-4)
