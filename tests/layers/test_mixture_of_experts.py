"""Tests of all mixtures of experts. B 2, T 9, D 24, E 5 experts of F 6 units."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import BlockSparseFFConfig, SwitchFFConfig
from terraformer.layers.mixture_of_experts import BlockSparseFF, SwitchFF
from tests.weights import build, call, step

KINDS = {
  # Every training call is hard; a soft call has no routing to test.
  BlockSparseFF: BlockSparseFFConfig(d_ff=30, n_experts=5, temperature=0.0, hard_probability=1.0),
  SwitchFF: SwitchFFConfig(d_ff=30, n_experts=5, temperature=0.0),
}
X_BXTXD = np.random.default_rng(0).normal(size=(2, 9, 24)).astype(np.float32)
by_kind = pytest.mark.parametrize('kind', KINDS)
by_seed = pytest.mark.parametrize('seed', range(3))


def _layer(kind, seed=0, rate=0.0, **changes):
  return build(lambda key: kind(dataclasses.replace(KINDS[kind], **changes), 24, rate, key=key), seed)


@by_kind
@by_seed
def test_step_equals_call(kind, seed):
  layer = _layer(kind, seed)
  stepped_BTxD = step(layer, X_BXTXD.reshape(-1, 24))
  np.testing.assert_allclose(stepped_BTxD.reshape(X_BXTXD.shape), call(layer, X_BXTXD)[0], atol=1e-4)


@by_kind
def test_a_step_reads_only_the_selected_expert(kind):
  layer = _layer(kind)
  x_1xD = X_BXTXD[:1, 0]
  expected = step(layer, x_1xD)
  unread_E = np.arange(5) != np.asarray(layer.logits(x_1xD)[0].argmax())
  for weight in (layer.w1_ExFxD, layer.w2_ExFxD):
    weight.set_value(jnp.where(unread_E[:, None, None], jnp.nan, weight[...]))
  np.testing.assert_array_equal(step(layer, x_1xD), expected)


@by_kind
def test_the_expert_with_the_largest_logit_is_selected(kind):
  layer = _layer(kind)
  expected_BxT = (X_BXTXD @ np.asarray(layer.router_DxE[...])).argmax(-1)
  np.testing.assert_array_equal(call(layer, X_BXTXD)[1], expected_BxT)


@by_kind
@by_seed
def test_given_experts_are_used_instead_of_the_largest_logits(kind, seed):
  layer = _layer(kind, seed)
  expert_BxT = np.random.default_rng(seed).integers(0, 5, (2, 9)).astype(np.uint8)
  y_BxTxD, used_BxT = call(layer, X_BXTXD, routing=expert_BxT)
  np.testing.assert_array_equal(used_BxT, expert_BxT)
  # Only the tokens of expert 3 can be compared.
  only_BxTxD, _ = call(layer, X_BXTXD, routing=np.full((2, 9), 3, np.uint8))
  np.testing.assert_allclose(np.asarray(y_BxTxD)[expert_BxT == 3], np.asarray(only_BxTxD)[expert_BxT == 3], atol=1e-5)


@by_kind
def test_the_routing_of_a_noisy_call_reproduces_it(kind):
  layer = _layer(kind, temperature=5.0)
  y_BxTxD, expert_BxT = call(layer, X_BXTXD, key=jax.random.key(3))
  assert np.any(expert_BxT != layer.logits(X_BXTXD).argmax(-1))
  again_BxTxD, _ = call(layer, X_BXTXD, key=jax.random.key(3), routing=expert_BxT)
  np.testing.assert_array_equal(again_BxTxD, y_BxTxD)


@jax.jit
def _training_gradient(layer, x_BxTxD):
  return jax.grad(lambda layer: jnp.sin(layer(x_BxTxD, key=jax.random.key(0))[0]).sum())(layer)


@by_kind
@by_seed
def test_experts_that_are_not_selected_learn_nothing(kind, seed):
  layer = _layer(kind, seed)
  x_1x1xD = X_BXTXD[:1, :1]
  expert = int(call(layer, x_1x1xD)[1][0, 0])
  gradient = _training_gradient(layer, x_1x1xD)
  for weight in (gradient.w1_ExFxD, gradient.w2_ExFxD):
    np.testing.assert_array_equal(np.asarray(weight[...]).any((1, 2)), np.arange(5) == expert)


@by_kind
def test_bfloat16_inputs_give_bfloat16(kind):
  layer = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), _layer(kind))
  y_BxTxD, _ = jax.eval_shape(lambda x, key: layer(x, key=key), X_BXTXD.astype(jnp.bfloat16), jax.random.key(0))
  assert y_BxTxD.dtype == jnp.bfloat16


@by_kind
def test_all_tokens_of_a_call_share_one_dropout_mask(kind):
  y_BxTxD, _ = call(_layer(kind, rate=0.5), X_BXTXD, key=jax.random.key(0))
  dropped_BxTxD = np.asarray(y_BxTxD) == 0
  assert 0 < dropped_BxTxD.mean() < 1 and (dropped_BxTxD == dropped_BxTxD[:1, :1]).all()
