"""A grid of 3 x 2 x 2 positions, with vectors of 5, 7 and 12; D 24."""

import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import AxialPositionsConfig
from terraformer.layers.positions import AxialPositions
from tests.weights import build, call, step


def _layer():
  return build(lambda key: AxialPositions(AxialPositionsConfig((3, 2, 2), (5, 7, 12)), 12, 24, key=key))


def _grid(layer):
  """Returns the vectors of all positions, PxD, with the slowest coordinate in the outermost loop."""
  tables = [np.asarray(table_CxW[...]) for table_CxW in layer.tables_CxW]
  return np.stack([np.concatenate([a, b, c]) for a in tables[0] for b in tables[1] for c in tables[2]])


@pytest.mark.parametrize('time', [12, 7])
def test_the_first_coordinate_of_the_grid_changes_slowest(time):
  layer = _layer()
  np.testing.assert_array_equal(call(layer, np.zeros((1, time, 24), np.float32))[0], _grid(layer)[:time])


def test_each_example_has_its_own_position():
  layer, position_B = _layer(), np.asarray([10, 3])
  np.testing.assert_array_equal(step(layer, jnp.zeros((2, 24)), position_B), _grid(layer)[position_B])


def test_positions_past_the_grid_use_its_last_one():
  layer = _layer()
  np.testing.assert_array_equal(step(layer, jnp.zeros((1, 24)), jnp.asarray([12])), _grid(layer)[11:])


def test_a_sequence_longer_than_the_grid_is_refused():
  with pytest.raises(ValueError, match='a sequence of 13 tokens is longer than the 12 positions'):
    _layer()(jnp.zeros((1, 13, 24)))
