"""B 2, T 9, D 24, 30 units."""

import jax
import numpy as np
import pytest

from terraformer.config import DenseFFConfig
from terraformer.layers.dense_ff import DenseFF
from tests.weights import build, call, step

X_BXTXD = np.random.default_rng(0).normal(size=(2, 9, 24)).astype(np.float32)


def _layer(seed=0, rate=0.0):
  return build(lambda key: DenseFF(DenseFFConfig(30), 24, rate, key=key), seed)


@pytest.mark.parametrize('seed', range(3))
def test_two_dense_layers_with_a_relu_between(seed):
  layer = _layer(seed)
  w1, b1, w2, b2 = (
    np.asarray(p[...])
    for p in (layer.expand.kernel_DxF, layer.expand.bias_F, layer.contract.kernel_DxF, layer.contract.bias_F)
  )
  np.testing.assert_allclose(call(layer, X_BXTXD)[0], np.maximum(X_BXTXD @ w1 + b1, 0) @ w2 + b2, atol=1e-4)


@pytest.mark.parametrize('seed', range(3))
def test_step_equals_call(seed):
  layer = _layer(seed)
  np.testing.assert_allclose(step(layer, X_BXTXD[:, 3]), call(layer, X_BXTXD)[0][:, 3], atol=1e-4)


def test_all_tokens_of_an_example_share_one_dropout_mask():
  y_BxTxD, _ = call(_layer(rate=0.5), X_BXTXD, key=jax.random.key(0))
  dropped = np.asarray(y_BxTxD == 0)
  assert (dropped == dropped[:, :1]).all() and (dropped[0] != dropped[1]).any()
