"""B 2, T 5, D 24, S 4 modules, H 3 heads, which cut across modules."""

import dataclasses

import jax
import numpy as np
import pytest

from terraformer.config import DenseProjectionConfig, ModularProjectionConfig
from terraformer.layers.separate_qkv import DenseProjection, ModularProjection
from terraformer.ops.attention import dot_product_attention
from tests.reference.vectors import TOLERANCE, assign, load
from tests.weights import build, call, step

X_BXTXD = np.random.default_rng(0).normal(size=(2, 5, 24)).astype(np.float32)


KINDS = {DenseProjection: DenseProjectionConfig(), ModularProjection: ModularProjectionConfig(4)}
by_kind = pytest.mark.parametrize('kind', KINDS)


def _layer(kind, **options):
  return build(lambda key: kind(dataclasses.replace(KINDS[kind], **options), 24, 3, key=key))


@by_kind
@pytest.mark.parametrize('index', range(3))
def test_a_head_is_a_contiguous_slice(kind, index):
  layer = _layer(kind)
  dense = (layer.query, layer.key, layer.value)[index]
  expected = np.stack(np.split(np.asarray(dense(X_BXTXD)), 3, axis=-1), axis=2)
  np.testing.assert_allclose(call(layer, X_BXTXD)[index], expected, atol=1e-5)


@by_kind
@pytest.mark.parametrize('index', range(3))
def test_step_equals_call(kind, index):
  layer = _layer(kind)
  np.testing.assert_allclose(step(layer, X_BXTXD[:, 3], None)[0][index], call(layer, X_BXTXD)[index][:, 3], atol=1e-4)


@by_kind
def test_heads_are_joined_before_the_output_layer(kind):
  layer = _layer(kind)
  heads_BxTxHxK = np.stack(np.split(X_BXTXD, 3, axis=-1), axis=2)
  np.testing.assert_allclose(layer.project_output(heads_BxTxHxK), layer.output(X_BXTXD), atol=1e-5)


@by_kind
def test_shared_keys_are_the_queries(kind):
  q_BxTxHxK, k_BxTxHxK, _ = call(_layer(kind, share_qk=True), X_BXTXD)
  np.testing.assert_array_equal(k_BxTxHxK, q_BxTxHxK)


def test_without_biases_zero_stays_zero():
  layer = _layer(DenseProjection, bias=False)
  zeros = np.zeros_like(X_BXTXD)
  assert not any(np.any(projected) for projected in layer(zeros))


@jax.jit
def _causal_attention(layer, x_BxTxD):
  q, k, v = layer(x_BxTxD)
  visible_1xTxT = np.tri(x_BxTxD.shape[1], dtype=bool)[None]
  return layer.project_output(dot_product_attention(q, k.swapaxes(1, 2), v.swapaxes(1, 2), visible_1xTxT))


def test_causal_attention_with_the_projection_agrees_with_the_reference():
  r = load('mult_modular_attention')
  config = ModularProjectionConfig(int(r['sparsity']))
  layer = build(lambda key: ModularProjection(config, r['x'].shape[-1], int(r['n_heads']), key=key))
  for name, group in {'q': layer.query, 'k': layer.key, 'v': layer.value, 'out': layer.output}.items():
    weights = {weight: r[f'w_{name}_{weight}'] for weight in ('multiplier', 'kernel_mult', 'kernel_modular', 'bias')}
    assign(group, gating_SxD=weights['multiplier'], projection_DxW=weights['kernel_mult'])
    assign(group, modular_SxWxV=weights['kernel_modular'], bias_SxV=weights['bias'].reshape(4, 4))
  np.testing.assert_allclose(_causal_attention(layer, r['x']), r['y'], atol=TOLERANCE)
