"""B 3, T 9, D 24, S 4 modules, H 3 heads, which cut across modules; the prefix has 5 positions.

`reference/check.py` compares every stage and option with the authors' code.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import SparseProjectionConfig
from terraformer.layers.modular_convolution import ModularConvolution
from terraformer.layers.sparse_qkv import SparseProjection
from tests.weights import build, call, step

CONFIGS = [
  SparseProjectionConfig(4, 3, 3),
  SparseProjectionConfig(4, 1, 5),
  SparseProjectionConfig(4, 3, 1, share_qk=True),
  SparseProjectionConfig(4, 3, 3, value_reads_input=True),
  SparseProjectionConfig(4, 3, 3, value_reads_input=True, value_by_module=False),
]
OUTPUTS = [
  SparseProjectionConfig(4, 3, 3),
  SparseProjectionConfig(4, 3, 3, output_multiplicative=True),
  SparseProjectionConfig(4, 3, 3, output_convolution=True),
  SparseProjectionConfig(4, 4, 1, output_multiplicative=True, output_convolution=True),
]


def _layer_and_input(config, seed=0):
  layer = build(lambda key: SparseProjection(config, 24, 3, key=key), seed)
  return layer, np.random.default_rng(seed).normal(size=(3, 9, 24)).astype(np.float32)


@jax.jit
def _prefill(layer, x_BxTxD, length_B):
  return layer.prefill(x_BxTxD, length_B)


@pytest.mark.parametrize('config', CONFIGS)
@pytest.mark.parametrize('seed', range(3))
def test_step_equals_call(config, seed):
  layer, x_BxTxD = _layer_and_input(config, seed)
  cache, stepped = layer.init_cache(3), []
  for t in range(9):
    qkv, cache = step(layer, x_BxTxD[:, t], cache)
    stepped.append(qkv)
  for steps, called in zip(zip(*stepped, strict=True), call(layer, x_BxTxD), strict=True):
    np.testing.assert_allclose(np.stack(steps, 1), called, atol=1e-4)


@pytest.mark.parametrize('config', CONFIGS)
def test_a_step_after_prefill_continues_each_example_where_it_ends(config):
  layer, x_BxTxD = _layer_and_input(config)
  length_B = jnp.asarray([5, 1, 0])
  _, cache = _prefill(layer, x_BxTxD[:, :5], length_B)
  stepped, _ = step(layer, x_BxTxD[jnp.arange(3), length_B], cache)
  for one, other in zip(stepped, call(layer, x_BxTxD), strict=True):
    np.testing.assert_allclose(one, other[jnp.arange(3), length_B], atol=1e-4)


@pytest.mark.parametrize('config', CONFIGS)
def test_prefill_projects_like_call(config):
  layer, x_BxTxD = _layer_and_input(config)
  prefilled, _ = _prefill(layer, x_BxTxD, jnp.asarray([9, 2, 0]))
  for one, other in zip(prefilled, call(layer, x_BxTxD), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6)


def _layer_and_heads(config, seed=0):
  layer, y_BxTxD = _layer_and_input(config, seed)
  return layer, y_BxTxD.reshape(3, 9, 3, 8)


@jax.jit
def _outputs_by_steps_and_call(layer, y_BxTxHxK, length_B):
  """Returns the outputs after the first `length_B` positions: from steps after a prefill of 5, and from one call."""
  _, cache = layer.output_prefill(y_BxTxHxK[:, :5], length_B)
  position_BxT = length_B[:, None] + jnp.arange(4)
  rest_BxTxHxK = jnp.take_along_axis(y_BxTxHxK, position_BxT[..., None, None], axis=1)
  _, stepped_TxBxD = jax.lax.scan(
    lambda cache, y_BxHxK: layer.output_step(y_BxHxK, cache)[::-1], cache, rest_BxTxHxK.swapaxes(0, 1)
  )
  expected_BxTxD = jnp.take_along_axis(layer.project_output(y_BxTxHxK), position_BxT[..., None], axis=1)
  return stepped_TxBxD.swapaxes(0, 1), expected_BxTxD


@pytest.mark.parametrize('config', OUTPUTS)
@pytest.mark.parametrize('seed', range(3))
def test_output_steps_after_output_prefill_equal_project_output(config, seed):
  layer, y_BxTxHxK = _layer_and_heads(config, seed)
  stepped, expected = _outputs_by_steps_and_call(layer, y_BxTxHxK, jnp.asarray([5, 1, 0]))
  np.testing.assert_allclose(stepped, expected, atol=1e-4)


@pytest.mark.parametrize('config', OUTPUTS)
def test_the_first_output_step_starts_from_the_initial_cache(config):
  layer, y_BxTxHxK = _layer_and_heads(config)
  stepped, _ = layer.output_step(y_BxTxHxK[:, 0], layer.init_output_cache(3))
  np.testing.assert_allclose(stepped, layer.project_output(y_BxTxHxK)[:, 0], atol=1e-4)


def test_by_default_the_result_of_attention_is_not_projected_again():
  layer, y_BxTxHxK = _layer_and_heads(OUTPUTS[0])
  np.testing.assert_array_equal(layer.project_output(y_BxTxHxK), y_BxTxHxK.reshape(3, 9, 24))


def test_shared_keys_are_the_queries():
  layer, x_BxTxD = _layer_and_input(CONFIGS[2])
  q_BxTxHxK, k_BxTxHxK, _ = call(layer, x_BxTxD)
  np.testing.assert_array_equal(q_BxTxHxK, k_BxTxHxK)


@pytest.mark.parametrize('config', OUTPUTS)
def test_all_positions_are_computed_without_a_cache(config, monkeypatch):
  layer, x_BxTxD = _layer_and_input(config)

  def refuse(*_):
    raise AssertionError('computed a cache')

  monkeypatch.setattr(ModularConvolution, 'cache_after', refuse)
  q_BxTxHxK, _, _ = layer(x_BxTxD)
  assert layer.project_output(q_BxTxHxK).shape == x_BxTxD.shape
