import numpy as np
import pytest

from terraformer.layers.dense import Dense
from tests.weights import build


@pytest.mark.parametrize('leading', [(), (2, 5)])
def test_dense_is_a_product_and_a_bias(leading):
  layer = build(lambda key: Dense(7, 5, key=key))
  x_xD = np.random.default_rng(0).normal(size=(*leading, 7)).astype(np.float32)
  expected = np.tensordot(x_xD, layer.kernel_DxF[...], 1) + layer.bias_F[...]
  np.testing.assert_allclose(layer(x_xD), expected, atol=1e-5)


def test_dense_without_a_bias_maps_zero_to_zero():
  layer = build(lambda key: Dense(7, 5, key=key, bias=False))
  assert not np.any(layer(np.zeros(7, np.float32)))
