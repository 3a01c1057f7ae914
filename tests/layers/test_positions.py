"""Tests of all kinds of positions. B 3, T 9, D 24, 16 positions."""

import jax
import numpy as np
import pytest

from terraformer.config import (
  AxialPositionsConfig,
  FixedBasePositionsConfig,
  SinusoidPositionsConfig,
  TablePositionsConfig,
)
from terraformer.layers.make import make_positions
from tests.weights import build, call, step

SHIFTED = {
  'table': TablePositionsConfig(max_offset=7, start_from_zero=0.0),
  'sinusoid': SinusoidPositionsConfig(max_offset=7, start_from_zero=0.0),
  'fixed_base': FixedBasePositionsConfig(start_from_zero=0.0, drop=0.0),
}
CONFIGS = SHIFTED | {'axial': AxialPositionsConfig((4, 4), (10, 14))}
X_BXTXD = np.random.default_rng(0).normal(size=(3, 9, 24)).astype(np.float32)
by_config = pytest.mark.parametrize('name', CONFIGS)
by_shifted_config = pytest.mark.parametrize('name', SHIFTED)


def _layer(name, seed=0):
  return build(lambda key: make_positions(CONFIGS[name], 16, 24, key=key), seed)


@by_config
@pytest.mark.parametrize('seed', range(3))
def test_step_equals_call(name, seed):
  layer = _layer(name, seed)
  position_BT = np.tile(np.arange(9), 3)
  stepped_BTxD = step(layer, X_BXTXD.reshape(-1, 24), position_BT)
  np.testing.assert_allclose(stepped_BTxD.reshape(X_BXTXD.shape), call(layer, X_BXTXD), atol=1e-5)


@by_config
def test_positions_are_added(name):
  layer = _layer(name)
  np.testing.assert_allclose(call(layer, X_BXTXD) - call(layer, np.zeros_like(X_BXTXD)), X_BXTXD, atol=1e-5)


@by_config
def test_without_a_key_all_examples_have_the_same_positions(name):
  y_BxTxD = np.asarray(call(_layer(name), np.zeros_like(X_BXTXD)))
  np.testing.assert_array_equal(y_BxTxD, np.broadcast_to(y_BxTxD[:1], y_BxTxD.shape))


@by_shifted_config
def test_with_a_key_examples_start_at_different_positions(name):
  y_BxTxD = np.asarray(call(_layer(name), np.zeros_like(X_BXTXD), key=jax.random.key(1)))
  assert not np.allclose(y_BxTxD, y_BxTxD[:1])


@by_config
def test_layers_can_be_initialized_under_vmap(name):
  keys = jax.random.split(jax.random.key(0), 2)
  stacked = jax.eval_shape(jax.vmap(lambda key: make_positions(CONFIGS[name], 16, 24, key=key)), keys)
  assert all(leaf.shape[0] == 2 for leaf in jax.tree.leaves(stacked))
