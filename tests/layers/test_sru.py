"""B 3, T 9, W 5; the prefix has 5 positions, of which 5, 2 and 0 are real."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import SRUConfig
from terraformer.layers.sru import SRU
from tests.reference.vectors import TOLERANCE, assign, load
from tests.weights import build, call, step

by_seed = pytest.mark.parametrize('seed', range(3))
by_tanh = pytest.mark.parametrize('tanh', [False, True])


def _layer_and_input(seed, tanh=False):
  x_BxTxW = np.random.default_rng(seed).normal(size=(3, 9, 5)).astype(np.float32)
  return build(lambda key: SRU(SRUConfig(5, tanh), key=key), seed), x_BxTxW


def _reference(tanh=False):
  r = load('sru')
  layer = build(lambda key: SRU(SRUConfig(8, tanh), key=key))
  assign(layer.gates, kernel_DxF=r['w_kernel'], bias_F=r['w_bias'])
  return layer, r


@by_tanh
@by_seed
def test_step_equals_call(seed, tanh):
  layer, x_BxTxW = _layer_and_input(seed, tanh)
  state_BxW, stepped = layer.init_cache(3), []
  for t in range(9):
    y_BxW, state_BxW = step(layer, x_BxTxW[:, t], state_BxW)
    stepped.append(y_BxW)
  np.testing.assert_allclose(np.stack(stepped, 1), call(layer, x_BxTxW), atol=1e-4)


@by_seed
def test_a_step_after_prefill_continues_each_example_where_it_ends(seed):
  layer, x_BxTxW = _layer_and_input(seed)
  batch_B, length_B = jnp.arange(3), jnp.asarray([5, 2, 0])
  _, state_BxW = layer.prefill(x_BxTxW[:, :5], length_B)
  stepped, _ = step(layer, x_BxTxW[batch_B, length_B], state_BxW)
  np.testing.assert_allclose(stepped, call(layer, x_BxTxW)[batch_B, length_B], atol=1e-4)


@by_tanh
def test_the_output_agrees_with_the_reference(tanh):
  layer, r = _reference(tanh)
  np.testing.assert_allclose(call(layer, r['x']), r['y_tanh' if tanh else 'y'], atol=TOLERANCE)


def test_steps_agree_with_the_reference():
  layer, r = _reference()
  state_BxW = layer.init_cache(2)
  for t in range(7):
    y_BxW, state_BxW = step(layer, r['x'][:, t], state_BxW)
    np.testing.assert_allclose(y_BxW, r['y_predict_stepwise'][:, t], atol=TOLERANCE, err_msg=f'position {t}')


def test_gradients_agree_with_the_reference():
  layer, r = _reference()
  gradients = jax.jit(jax.grad(lambda layer, x: (layer(x) * r['cotangent']).sum(), argnums=(0, 1)))
  d_layer, d_x = gradients(layer, r['x'])
  found = {'x': d_x, 'kernel': d_layer.gates.kernel_DxF[...], 'bias': d_layer.gates.bias_F[...]}
  for name, gradient in found.items():
    np.testing.assert_allclose(gradient, r[f'grad_{name}'], atol=TOLERANCE, err_msg=name)
