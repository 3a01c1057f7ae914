"""B 3, T 9, D 24, S 4 modules, H 3 heads that do not coincide with modules; the prefix has 5 positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import SparseProjectionConfig
from terraformer.layers.sparse_qkv import SparseProjection
from tests.reference.vectors import TOLERANCE, assign_sparse_projection, load
from tests.weights import build, call, step

CONFIGS = [SparseProjectionConfig(4, 3, 3), SparseProjectionConfig(4, 1, 5)]


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


@jax.jit
def _stages(layer, x_BxTxD):
  return dict(zip('qkv', layer(x_BxTxD), strict=True), mult=layer.shared(x_BxTxD))


@pytest.mark.parametrize('stage', ['mult', 'q', 'k', 'v'])
def test_stages_are_those_of_the_reference(stage):
  r = load('mult_conv_attention')
  layer = build(lambda key: SparseProjection(SparseProjectionConfig(4, 3, 3), 16, 4, key=key))
  assign_sparse_projection(layer, r)
  found = _stages(layer, r['x'])
  np.testing.assert_allclose(found[stage].reshape(2, 6, 16), r[f'stage_{stage}'], atol=TOLERANCE)
