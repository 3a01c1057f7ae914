"""M 5 blocks of N 6 units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.ops.routing import first_of_largest, select_units, straight_through
from tests.reference.vectors import TOLERANCE, load


def _logits(seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=(4, 5, 6)), jnp.float32)


def test_the_first_of_equal_logits_is_selected():
  units_xM = select_units(jnp.asarray([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]]))
  np.testing.assert_array_equal(units_xM, [1, 0])


@pytest.mark.parametrize('arguments', [{'key': None, 'temperature': 9.0}, {'key': 0, 'temperature': 0.0}])
def test_without_key_or_temperature_the_largest_logit_is_selected(arguments):
  key = None if arguments['key'] is None else jax.random.key(arguments['key'])
  units_xM = select_units(_logits(), temperature=arguments['temperature'], key=key)
  np.testing.assert_array_equal(units_xM, np.argmax(_logits(), -1))


@pytest.mark.parametrize(('n_units', 'dtype'), [(256, np.uint8), (257, np.uint16)])
def test_the_index_has_the_smallest_type_that_holds_it(n_units, dtype):
  units = select_units(jnp.arange(n_units, dtype=jnp.float32))
  assert units.dtype == dtype and units == n_units - 1


def test_noisy_choices_agree_with_the_reference(monkeypatch):
  r = load('sparse_ff_train_quant_gumbel')
  monkeypatch.setattr(jax.random, 'uniform', lambda *args, **kwargs: jnp.asarray(r['u']))
  units_xM = select_units(jnp.asarray(r['mask_logits']), temperature=float(r['temperature']), key=jax.random.key(0))
  np.testing.assert_array_equal(units_xM, r['quant_mask'])


def test_the_reference_choices_show_the_noise():
  r = load('sparse_ff_train_quant_gumbel')
  assert np.any(r['mask_logits'].argmax(-1) != r['quant_mask'])


def test_the_noise_follows_the_softmax_at_temperature_one():
  # Gumbel-max: the share of each unit is its probability. With 20,000 samples, 0.015 is four standard deviations.
  logits_N = jnp.asarray([0.0, 1.0, -1.0, 0.5])
  units = select_units(jnp.broadcast_to(logits_N, (20_000, 4)), temperature=1.0, key=jax.random.key(0))
  np.testing.assert_allclose(np.bincount(units, minlength=4) / 20_000, jax.nn.softmax(logits_N), atol=0.015)


def test_the_straight_through_mask_is_one_hot():
  units_xM = select_units(_logits())
  mask_xMxN = jax.jit(straight_through)(units_xM, jax.nn.softmax(_logits()))
  np.testing.assert_allclose(mask_xMxN, np.eye(6)[np.asarray(units_xM)], atol=1e-6)


def test_units_that_were_not_selected_are_masked_exactly():
  # A remainder of 1e-9 would let their gradient through the ReLU, which blocks it only at 0.
  units_xM = select_units(_logits())
  mask_xMxN = jax.jit(straight_through)(units_xM, jax.nn.softmax(_logits()))
  assert np.count_nonzero(mask_xMxN) == units_xM.size


@pytest.mark.parametrize('seed', range(3))
def test_the_straight_through_gradient_equals_that_of_the_softmax(seed):
  cotangent = _logits(seed + 10)

  def through(mask):
    return jax.grad(lambda logits: (mask(jax.nn.softmax(logits)) * cotangent).sum())(_logits(seed))

  straight = through(lambda soft: straight_through(select_units(_logits(seed)), soft))
  np.testing.assert_allclose(straight, through(lambda soft: soft), atol=1e-6)


@pytest.mark.parametrize('name', ['sparse_ff_train_quant_t0', 'sparse_ff_train_quant_gumbel'])
def test_the_soft_mask_agrees_with_the_noiseless_one_of_the_reference(name):
  r = load(name)
  np.testing.assert_allclose(jax.nn.softmax(r['mask_logits']), r['soft_mask'], atol=TOLERANCE)


@pytest.mark.parametrize('shape', [(7,), (3, 16), (2, 700, 300), (20_000, 16)])
def test_the_first_of_the_largest_equals_argmax(shape):
  x = np.random.default_rng(0).integers(0, 4, shape).astype(np.float32)  # with many ties
  np.testing.assert_array_equal(first_of_largest(jnp.asarray(x)), x.argmax(-1))
  x = np.full(shape, -np.inf, np.float32)
  np.testing.assert_array_equal(first_of_largest(jnp.asarray(x)), x.argmax(-1))


def test_a_row_with_a_nan_gives_an_index_within_the_row():
  assert 0 <= int(first_of_largest(jnp.asarray([0.0, np.nan, 1.0]))) < 3
