"""D 24, from 8 digits of width 3; or from 3 digits of width 8 in bases 3 and 4, for 27 positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import FixedBasePositionsConfig
from terraformer.layers.positions import FixedBasePositions
from tests.reference.vectors import TOLERANCE, assign, load
from tests.weights import build, call, step

SMALL = {'bases': (3, 4), 'n_digits': 3}
ZEROS = np.zeros((300, 7, 24), np.float32)


def _layer(**config):
  return build(lambda key: FixedBasePositions(FixedBasePositionsConfig(**config), 1024, 24, key=key))


def _slow(layer, position):
  """Returns the vector of one position without the start vector, computed with Python integers."""
  total_D = np.zeros(24)
  for base, weights_IxW in zip(layer.config.bases, np.asarray(layer.weights_NxIxW[...]), strict=True):
    total_D += np.concatenate([position // base**i % base * w for i, w in enumerate(weights_IxW)])
  return total_D


def test_the_output_agrees_with_the_reference():
  r = load('layernorm_positional')
  layer = build(lambda key: FixedBasePositions(FixedBasePositionsConfig(), 1024, 16, key=key))
  assign(layer, weights_NxIxW=r['fixedbase_weights'][:, :, 0], start_D=r['fixedbase_start_vec'][0, 0])
  np.testing.assert_allclose(call(layer, r['x']), r['fixedbase_y'], atol=TOLERANCE)


@pytest.mark.parametrize('bases', [(11, 13, 14, 15), (2, 1000)])
def test_digits_of_late_positions_are_exact(bases):
  # The value of the last digit, 1000^7, does not fit into the integers of a position.
  layer = _layer(bases=bases)
  position_B = np.asarray([1, 12_345, 214_358_880, 2**31 - 1])
  expected_BxD = np.stack([_slow(layer, int(position)) for position in position_B])
  np.testing.assert_allclose(step(layer, np.zeros((4, 24), np.float32), position_B), expected_BxD, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(('position', 'present'), [(0, True), (1, False)])
def test_a_step_adds_the_start_vector_only_at_position_0(position, present):
  layer = _layer()
  expected_D = _slow(layer, position) + present * np.asarray(layer.start_D[...])
  np.testing.assert_allclose(step(layer, jnp.zeros((1, 24)), jnp.asarray([position]))[0], expected_D, atol=1e-5)


def _trained(**config):
  layer = _layer(**SMALL, **config)
  y_BxTxD = np.asarray(call(layer, ZEROS, key=jax.random.key(0)))
  return layer, y_BxTxD - (np.arange(7) == 0)[:, None] * np.asarray(layer.start_D[...])


def test_random_starts_leave_room_for_the_sequence_and_do_not_move_the_start_vector():
  layer, digits_BxTxD = _trained(start_from_zero=0.0, drop=0.0)
  starts = [np.stack([_slow(layer, start + t) for t in range(7)]) for start in range(27 - 7)]
  is_start_BxS = np.stack([np.abs(digits_BxTxD - vectors).max((1, 2)) < 1e-4 for vectors in starts], 1)
  assert is_start_BxS.any(1).all() and is_start_BxS.any(0).all()


def test_a_share_of_the_examples_gets_only_the_start_vector():
  _, digits_BxTxD = _trained(drop=0.3)
  dropped_B = np.abs(digits_BxTxD).max((1, 2)) < 1e-6
  # 300 samples: 0.11 is four standard deviations.
  assert abs(dropped_B.mean() - 0.3) < 0.11


def test_a_sequence_too_long_for_the_digits_is_refused():
  with pytest.raises(ValueError, match='a sequence of 28 tokens is longer than the 27 positions'):
    _layer(**SMALL)(jnp.zeros((1, 28, 24)))
