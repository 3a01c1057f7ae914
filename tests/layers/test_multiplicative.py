"""S 4 modules of 5 outputs, D 24 inputs."""

import jax
import numpy as np
import pytest

from terraformer.layers.multiplicative import MultiplicativeDense
from tests.reference.vectors import TOLERANCE, assign, load
from tests.weights import build, call


def _reference():
  r = load('factored_dense')
  layer = build(lambda key: MultiplicativeDense(int(r['n_modules']), 16, 24, key=key))
  assign(layer, gating_SxD=r['w_gating'], projection_DxW=r['w_projection'], bias_SxW=r['w_bias'].reshape(4, 6))
  return layer, r


@pytest.mark.parametrize('seed', range(3))
def test_a_module_is_the_gated_input_times_the_shared_projection(seed):
  layer = build(lambda key: MultiplicativeDense(4, 24, 20, key=key), seed)
  x_BxD = np.random.default_rng(seed).normal(size=(3, 24)).astype(np.float32)
  modules = [(x_BxD * layer.gating_SxD[...][s]) @ layer.projection_DxW[...] + layer.bias_SxW[...][s] for s in range(4)]
  np.testing.assert_allclose(call(layer, x_BxD), np.concatenate(modules, -1), atol=1e-5)


def test_the_output_agrees_with_the_reference():
  layer, r = _reference()
  np.testing.assert_allclose(call(layer, r['x']), r['y'], atol=TOLERANCE)


def test_gradients_agree_with_the_reference():
  layer, r = _reference()
  gradients = jax.jit(jax.grad(lambda layer, x: (layer(x) * r['cotangent']).sum(), argnums=(0, 1)))
  d_layer, d_x = gradients(layer, r['x'])
  found = {
    'x': d_x,
    'gating': d_layer.gating_SxD[...],
    'projection': d_layer.projection_DxW[...],
    'bias': d_layer.bias_SxW[...].reshape(-1),
  }
  for name, gradient in found.items():
    np.testing.assert_allclose(gradient, r[f'grad_{name}'], atol=TOLERANCE, err_msg=name)


def test_modules_must_divide_the_outputs():
  with pytest.raises(ValueError, match=r'^d_out: expected a multiple of n_modules \(4\), found 22'):
    MultiplicativeDense(4, 24, 22, key=jax.random.key(0))
