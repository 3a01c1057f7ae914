"""B 2, T 9, D 24, E 5 experts of F 6 units. `test_mixture_of_experts` tests what all mixtures share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import SwitchFFConfig
from terraformer.layers.mixture_of_experts import SwitchFF
from tests.weights import build, call

CONFIG = SwitchFFConfig(d_ff=30, n_experts=5, temperature=0.0)
X_BXTXD = np.random.default_rng(0).normal(size=(2, 9, 24)).astype(np.float32)


def _layer(seed=0, **changes):
  return build(lambda key: SwitchFF(dataclasses.replace(CONFIG, **changes), 24, 0.0, key=key), seed)


def _slow(layer, expert_BxT):
  """Returns, token by token, the result of one expert times its probability."""
  w1, w2, router = (np.asarray(p[...]) for p in (layer.w1_ExFxD, layer.w2_ExFxD, layer.router_DxE))
  y_BxTxD = np.zeros_like(X_BXTXD)
  for b, t in np.ndindex(2, 9):
    x_D, e = X_BXTXD[b, t], expert_BxT[b, t]
    probability_E = np.exp(x_D @ router) / np.exp(x_D @ router).sum()
    y_BxTxD[b, t] = probability_E[e] * (np.maximum(w1[e] @ x_D, 0) @ w2[e])
  return y_BxTxD + np.asarray(layer.bias_D[...])


@pytest.mark.parametrize('seed', range(3))
def test_evaluation_scales_the_most_likely_expert_by_its_probability(seed):
  layer = _layer(seed)
  likeliest_BxT = (X_BXTXD @ np.asarray(layer.router_DxE[...])).argmax(-1)
  np.testing.assert_allclose(call(layer, X_BXTXD)[0], _slow(layer, likeliest_BxT), atol=1e-4)


def test_training_scales_by_the_probability_without_noise():
  layer = _layer(temperature=5.0)
  y_BxTxD, expert_BxT = call(layer, X_BXTXD, key=jax.random.key(0))
  np.testing.assert_allclose(y_BxTxD, _slow(layer, expert_BxT), atol=1e-4)


@jax.jit
def _router_gradients(layer):
  """Returns the router's gradient by automatic differentiation, and that through the selected expert's probability."""
  chosen_BxTxE = jnp.eye(5)[(X_BXTXD @ layer.router_DxE[...]).argmax(-1)]

  def slow(router_DxE):
    gain_BxTx1 = (jax.nn.softmax(X_BXTXD @ router_DxE) * chosen_BxTxE).sum(-1, keepdims=True)
    hidden_BxTxExF = jax.nn.relu(jnp.einsum('BTD,EFD->BTEF', X_BXTXD, layer.w1_ExFxD[...])) * chosen_BxTxE[..., None]
    y_BxTxD = jnp.einsum('BTEF,EFD->BTD', hidden_BxTxExF, layer.w2_ExFxD[...]) * gain_BxTx1 + layer.bias_D[...]
    return jnp.sin(y_BxTxD).sum()

  found = jax.grad(lambda layer: jnp.sin(layer(X_BXTXD, key=jax.random.key(0))[0]).sum())(layer)
  return found.router_DxE[...], jax.grad(slow)(layer.router_DxE[...])


@pytest.mark.parametrize('seed', range(3))
def test_the_router_learns_through_the_probability_of_the_selected_expert(seed):
  found, expected = _router_gradients(_layer(seed))
  np.testing.assert_allclose(found, expected, atol=1e-4)
