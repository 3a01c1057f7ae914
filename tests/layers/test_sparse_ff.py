"""B 2, T 9, D 24, M 5 blocks of N 6 units, R 7."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import SparseFFConfig
from terraformer.layers.sparse_ff import SparseFF
from tests.reference.vectors import TOLERANCE, assign, load
from tests.weights import build, call, step

CONFIG = SparseFFConfig(d_ff=30, block_size=6, rank=7, temperature=0.0)
X_BXTXD = np.random.default_rng(0).normal(size=(2, 9, 24)).astype(np.float32)
by_gain = pytest.mark.parametrize('multiply_by_controller_output', [False, True])
TRAINING = [f'sparse_ff_train_{case}' for case in ('quant_t0', 'quant_gumbel', 'soft', 'quant_mulctrl')]


def _layer(seed=0, rate=0.0, **changes):
  return build(lambda key: SparseFF(dataclasses.replace(CONFIG, **changes), 24, rate, key=key), seed)


@by_gain
@pytest.mark.parametrize('seed', range(3))
def test_step_equals_call(multiply_by_controller_output, seed):
  layer = _layer(seed, multiply_by_controller_output=multiply_by_controller_output)
  y_BxTxD, _ = call(layer, X_BXTXD)
  stepped = np.stack([step(layer, X_BXTXD[:, t]) for t in range(9)], 1)
  np.testing.assert_allclose(stepped, y_BxTxD, atol=1e-4)


def test_a_step_reads_only_the_selected_rows():
  layer = _layer()
  x_1xD = X_BXTXD[:1, 0]
  expected = step(layer, x_1xD)
  unread_MxN = jax.nn.one_hot(layer.logits(x_1xD)[0].argmax(-1), 6) == 0
  for weight in (layer.w1_MxNxD, layer.w2_MxNxD):
    weight.set_value(jnp.where(unread_MxN[..., None], jnp.nan, weight[...]))
  np.testing.assert_array_equal(step(layer, x_1xD), expected)


@pytest.mark.parametrize('seed', range(3))
def test_given_units_are_used_instead_of_the_largest_logits(seed):
  layer = _layer(seed)
  units_BxTxM = np.random.default_rng(seed).integers(0, 6, (2, 9, 5)).astype(np.uint8)
  y_BxTxD, used_BxTxM = call(layer, X_BXTXD, routing=units_BxTxM)
  np.testing.assert_array_equal(used_BxTxM, units_BxTxM)
  rows_1, rows_2 = (np.asarray(w[...])[np.arange(5), units_BxTxM] for w in (layer.w1_MxNxD, layer.w2_MxNxD))
  hidden_BxTxM = np.maximum(np.einsum('BTD,BTMD->BTM', X_BXTXD, rows_1), 0)
  expected = np.einsum('BTM,BTMD->BTD', hidden_BxTxM, rows_2) + layer.bias_D[...]
  np.testing.assert_allclose(y_BxTxD, expected, atol=1e-4)


def test_the_routing_of_a_noisy_call_reproduces_it():
  layer = _layer(temperature=5.0, hard_probability=1.0)
  y_BxTxD, units_BxTxM = call(layer, X_BXTXD, key=jax.random.key(3))
  assert np.any(units_BxTxM != layer.logits(X_BXTXD).argmax(-1))
  again_BxTxD, _ = call(layer, X_BXTXD, key=jax.random.key(3), routing=units_BxTxM)
  np.testing.assert_array_equal(again_BxTxD, y_BxTxD)


def test_hard_training_without_noise_has_the_value_of_evaluation():
  layer = _layer(hard_probability=1.0)
  y_BxTxD, _ = call(layer, X_BXTXD, key=jax.random.key(0))
  np.testing.assert_allclose(y_BxTxD, call(layer, X_BXTXD)[0], atol=1e-5)


def test_the_given_share_of_training_calls_is_hard_and_all_others_are_soft():
  layer = _layer(hard_probability=0.3)
  hard, soft = (call(_layer(hard_probability=p), X_BXTXD, key=jax.random.key(0))[0] for p in (1.0, 0.0))
  calls = jax.jit(lambda keys: jax.lax.map(lambda key: layer(X_BXTXD, key=key)[0], keys))
  y_CxBxTxD = np.asarray(calls(jax.random.split(jax.random.key(1), 400)))
  is_hard, is_soft = (np.abs(y_CxBxTxD - one).max((1, 2, 3)) < 1e-5 for one in (hard, soft))
  assert (is_hard ^ is_soft).all()
  # 400 samples: 0.09 is four standard deviations.
  assert abs(is_hard.mean() - 0.3) < 0.09


def test_all_tokens_of_a_call_share_one_dropout_mask():
  y_BxTxD, _ = call(_layer(rate=0.5), X_BXTXD, key=jax.random.key(0))
  dropped_BxTxD = np.asarray(y_BxTxD) == 0
  assert 0 < dropped_BxTxD.mean() < 1 and (dropped_BxTxD == dropped_BxTxD[:1, :1]).all()


def _reference(name, gain=False):
  r = load(name)
  soft = name.endswith('soft')
  config = SparseFFConfig(
    d_ff=32,
    block_size=int(r['n_elements_in_block']),
    rank=8,
    hard_probability=0.0 if soft else 1.0,
    multiply_by_controller_output=gain or name.endswith('mulctrl'),
  )
  layer = build(lambda key: SparseFF(config, 16, 0.0, key=key))
  assign(layer, **_ours({name: r[f'w_{name}'] for name in ('m1', 'm2', 'mb', 'w1', 'w2', 'b2')}))
  return layer, r


def _ours(arrays):
  """Returns the reference's weights or gradients in our layout."""
  return {
    'controller_DxR': arrays['m1'],
    'controller_RxMxN': arrays['m2'],
    'controller_bias_MxN': arrays['mb'],
    'w1_MxNxD': arrays['w1'].transpose(1, 2, 0),
    'w2_MxNxD': arrays['w2'].transpose(1, 0, 2),
    'bias_D': arrays['b2'],
  }


def test_logits_agree_with_the_reference():
  layer, r = _reference('sparse_ff_eval')
  np.testing.assert_allclose(layer.logits(r['x']).reshape(10, 8, 4), r['mask_logits'], atol=TOLERANCE)


def test_selected_units_agree_with_the_reference():
  layer, r = _reference('sparse_ff_eval')
  np.testing.assert_array_equal(call(layer, r['x'])[1].reshape(10, 8), r['quant_mask'])


@pytest.mark.parametrize('gain', [False, True])
def test_the_output_agrees_with_the_reference(gain):
  layer, r = _reference('sparse_ff_eval', gain)
  np.testing.assert_allclose(
    call(layer, r['x'])[0], r['y_multiply_by_controller_output' if gain else 'y'], atol=TOLERANCE
  )


def test_steps_agree_with_the_reference():
  layer, r = _reference('sparse_ff_eval')
  stepped = np.stack([step(layer, r['x'][:, t]) for t in range(5)], 1)
  np.testing.assert_allclose(stepped, r['y_predict'], atol=TOLERANCE)


@pytest.mark.parametrize('name', TRAINING)
def test_training_agrees_with_the_reference(name):
  # The reference's noisy choices are given here; the test of `select_units` shows that its noise leads to them.
  layer, r = _reference(name)

  def loss(layer, x_BxTxD):
    y_BxTxD, _ = layer(x_BxTxD, key=jax.random.key(0), routing=r['quant_mask'].reshape(2, 5, 8))
    return (y_BxTxD * r['cotangent']).sum(), y_BxTxD

  (_, y_BxTxD), (d_layer, d_x) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(layer, r['x'])
  np.testing.assert_allclose(y_BxTxD, r['y'], atol=TOLERANCE)
  np.testing.assert_allclose(d_x, r['grad_x'], atol=TOLERANCE)
  for name, expected in _ours({name: r[f'grad_{name}'] for name in ('m1', 'm2', 'mb', 'w1', 'w2', 'b2')}).items():
    np.testing.assert_allclose(getattr(d_layer, name)[...], expected, atol=TOLERANCE, err_msg=name)


@jax.jit
def _training_gradient(layer, x_BxTxD):
  return jax.grad(lambda layer: jnp.sin(layer(x_BxTxD, key=jax.random.key(0))[0]).sum())(layer)


@pytest.mark.parametrize('seed', range(3))
def test_units_that_are_not_selected_learn_nothing(seed):
  layer = _layer(seed, hard_probability=1.0)
  x_1x1xD = X_BXTXD[:1, :1]
  units_M = call(layer, x_1x1xD)[1][0, 0]
  gradient = _training_gradient(layer, x_1x1xD)
  learned_MxN = np.asarray(gradient.w1_MxNxD[...]).any(-1) | np.asarray(gradient.w2_MxNxD[...]).any(-1)
  assert learned_MxN.any() and not learned_MxN[np.eye(6)[np.asarray(units_M)] == 0].any()
