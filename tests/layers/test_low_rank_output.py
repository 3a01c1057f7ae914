"""D 24, R 5, V 30."""

import numpy as np
import pytest

from terraformer.layers.output import LowRankOutput
from tests.weights import build, call


@pytest.mark.parametrize('seed', range(3))
def test_logits_are_a_product_of_two_matrices_and_a_bias(seed):
  layer = build(lambda key: LowRankOutput(5, 24, 30, key=key), seed)
  contract, expand, bias = (
    np.asarray(p[...]) for p in (layer.contract.kernel_DxF, layer.expand.kernel_DxF, layer.expand.bias_F)
  )
  x_BxTxD = np.random.default_rng(seed).normal(size=(2, 3, 24)).astype(np.float32)
  np.testing.assert_allclose(call(layer, x_BxTxD), x_BxTxD @ contract @ expand + bias, atol=1e-5)


def test_the_inner_width_is_the_rank():
  layer = build(lambda key: LowRankOutput(5, 24, 30, key=key))
  assert layer.contract.kernel_DxF[...].shape == (24, 5) and layer.contract.bias_F is None
