"""S 4 modules of W 6, D 24 inputs."""

import jax
import numpy as np
import pytest

from terraformer.layers.multiplicative_modular import MultiplicativeModularDense
from tests.reference.vectors import TOLERANCE, assign, load
from tests.weights import build, call


@pytest.mark.parametrize('seed', range(3))
def test_a_module_is_the_gated_input_times_the_shared_projection_and_its_own_kernel(seed):
  layer = build(lambda key: MultiplicativeModularDense(4, 24, key=key), seed)
  x_BxD = np.random.default_rng(seed).normal(size=(3, 24)).astype(np.float32)
  gating, projection, modular, bias = (
    np.asarray(p[...]) for p in (layer.gating_SxD, layer.projection_DxW, layer.modular_SxWxV, layer.bias_SxV)
  )
  modules = [(x_BxD * gating[s]) @ projection @ modular[s] + bias[s] for s in range(4)]
  np.testing.assert_allclose(call(layer, x_BxD), np.concatenate(modules, -1), atol=1e-5)


def test_the_output_agrees_with_the_reference():
  r = load('mult_modular_sparse_dense')
  layer = build(lambda key: MultiplicativeModularDense(int(r['sparsity']), r['x'].shape[-1], key=key))
  assign(layer, gating_SxD=r['w_multiplier'], projection_DxW=r['w_kernel_mult'])
  assign(layer, modular_SxWxV=r['w_kernel_modular'], bias_SxV=r['w_bias'].reshape(4, 4))
  np.testing.assert_allclose(call(layer, r['x']), r['y'], atol=TOLERANCE)


def test_modules_must_divide_the_width():
  with pytest.raises(ValueError, match=r'^d_model: expected a multiple of n_modules \(4\), found 22'):
    MultiplicativeModularDense(4, 22, key=jax.random.key(0))
