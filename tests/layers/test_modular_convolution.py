"""B 2, T 7, S 4 modules of W 6; kernels of C positions times E modules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.layers.modular_convolution import ModularConvolution
from tests.reference.vectors import TOLERANCE, assign, load
from tests.weights import build, call


def _layer(length_kernel, module_kernel, seed=0):
  return build(lambda key: ModularConvolution(6, length_kernel, module_kernel, key=key), seed)


def _slow(layer, x_BxTxSxW):
  kernel, bias = np.asarray(layer.kernel_CxExVxW[...]), np.asarray(layer.bias_W[...])
  y_BxTxSxW = np.zeros_like(x_BxTxSxW) + bias
  for t, s, c, e in np.ndindex(*x_BxTxSxW.shape[1:3], *kernel.shape[:2]):
    from_t, from_s = t + c - (kernel.shape[0] - 1), s + e - kernel.shape[1] // 2
    if from_t >= 0 and 0 <= from_s < x_BxTxSxW.shape[2]:
      y_BxTxSxW[:, t, s] += x_BxTxSxW[:, from_t, from_s] @ kernel[c, e]
  return y_BxTxSxW


@pytest.mark.parametrize(('length_kernel', 'module_kernel'), [(3, 3), (2, 5), (1, 1)])
@pytest.mark.parametrize('seed', range(3))
def test_the_convolution_equals_a_loop(seed, length_kernel, module_kernel):
  layer = _layer(length_kernel, module_kernel, seed)
  x_BxTxSxW = np.random.default_rng(seed).normal(size=(2, 7, 4, 6)).astype(np.float32)
  np.testing.assert_allclose(call(layer, x_BxTxSxW), _slow(layer, x_BxTxSxW), atol=1e-5)


@pytest.mark.parametrize('tag', ['k3_l3', 'k1_l3', 'k3_l1'])
def test_the_output_agrees_with_the_reference(tag):
  r = load('locally_conv_dense')
  module_kernel, length_kernel = int(r[f'{tag}_kernel_size']), int(r[f'{tag}_length_kernel_size'])
  layer = build(lambda key: ModularConvolution(4, length_kernel, module_kernel, key=key))
  assign(layer, kernel_CxExVxW=r[f'{tag}_w_kernel'], bias_W=r[f'{tag}_w_bias'])
  y_BxTxSxW = call(layer, r['x'].reshape(2, 7, 4, 4))
  np.testing.assert_allclose(y_BxTxSxW.reshape(2, 7, 16), r[f'{tag}_y'], atol=TOLERANCE)


def test_valid_omits_the_first_positions():
  layer = _layer(3, 3)
  x_BxTxSxW = np.random.default_rng(0).normal(size=(2, 7, 4, 6)).astype(np.float32)
  np.testing.assert_allclose(layer.valid(x_BxTxSxW), call(layer, x_BxTxSxW)[:, 2:], atol=1e-6)


@pytest.mark.parametrize(('length_kernel', 'module_kernel'), [(3, 3), (2, 5), (1, 1)])
def test_steps_equal_call(length_kernel, module_kernel):
  layer = _layer(length_kernel, module_kernel)
  x_BxTxSxW = np.random.default_rng(0).normal(size=(2, 7, 4, 6)).astype(np.float32)
  cache, stepped = layer.init_cache(2, 4), []
  for t in range(7):
    window, cache = layer.window_step(x_BxTxSxW[:, t], cache)
    stepped.append(layer.apply_to_window(window))
  np.testing.assert_allclose(np.stack(stepped, 1), call(layer, x_BxTxSxW), atol=1e-5)


def test_the_cache_after_many_positions_equals_that_of_steps():
  layer = _layer(3, 3)
  x_BxTxSxW = np.random.default_rng(0).normal(size=(2, 7, 4, 6)).astype(np.float32)
  caches = [layer.init_cache(2, 4)]
  for t in range(7):
    caches.append(layer.window_step(x_BxTxSxW[:, t], caches[-1])[1])
  length_B = [4, 1]
  expected = np.stack([caches[length][example] for example, length in enumerate(length_B)])
  np.testing.assert_array_equal(layer.cache_after(x_BxTxSxW, np.asarray(length_B)), expected)


def test_results_do_not_depend_on_later_positions():
  layer = _layer(3, 3)
  fourth = lambda x_BxTxSxW: layer(x_BxTxSxW)[:, 3].sum()  # noqa: E731
  d_x_BxTxSxW = np.asarray(jax.jit(jax.grad(fourth))(jnp.ones((2, 7, 4, 6))))
  np.testing.assert_array_equal(d_x_BxTxSxW.any((0, 2, 3)), [False, True, True, True, False, False, False])
