"""B 2, T 5, D 24, H 3."""

import numpy as np
import pytest

from terraformer.config import DenseProjectionConfig
from terraformer.layers.dense_qkv import DenseProjection
from tests.weights import build, call, step

X_BXTXD = np.random.default_rng(0).normal(size=(2, 5, 24)).astype(np.float32)


def _layer(bias=True, share_qk=False):
  return build(lambda key: DenseProjection(DenseProjectionConfig(bias, share_qk), 24, 3, key=key))


@pytest.mark.parametrize('index', range(3))
def test_a_head_is_a_contiguous_slice(index):
  layer = _layer()
  dense = (layer.query, layer.key, layer.value)[index]
  expected = np.stack(np.split(np.asarray(dense(X_BXTXD)), 3, axis=-1), axis=2)
  np.testing.assert_allclose(call(layer, X_BXTXD)[index], expected, atol=1e-5)


@pytest.mark.parametrize('index', range(3))
def test_step_equals_call(index):
  layer = _layer()
  np.testing.assert_allclose(step(layer, X_BXTXD[:, 3], None)[0][index], call(layer, X_BXTXD)[index][:, 3], atol=1e-4)


def test_merge_joins_the_heads_before_the_output():
  layer = _layer()
  heads_BxTxHxK = np.stack(np.split(X_BXTXD, 3, axis=-1), axis=2)
  np.testing.assert_allclose(layer.merge(heads_BxTxHxK), layer.output(X_BXTXD), atol=1e-5)


def test_without_biases_zero_stays_zero():
  layer = _layer(bias=False)
  zeros = np.zeros_like(X_BXTXD)
  assert not any(np.any(projected) for projected in layer(zeros))


def test_shared_keys_are_the_queries():
  q_BxTxHxK, k_BxTxHxK, _ = call(_layer(share_qk=True), X_BXTXD)
  np.testing.assert_array_equal(q_BxTxHxK, k_BxTxHxK)
