"""P 9 positions, D 24."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import TablePositionsConfig
from terraformer.layers.positions import PositionTable
from tests.reference.vectors import TOLERANCE, load
from tests.weights import build, call, step


def _layer(**config):
  return build(lambda key: PositionTable(TablePositionsConfig(**config), 9, 24, key=key))


def test_initial_positions_are_added_as_in_the_reference():
  r = load('layernorm_positional')
  layer = PositionTable(TablePositionsConfig(), 9, 16, key=jax.random.key(0))
  np.testing.assert_allclose(layer(r['x']), r['pos_y_initial'], atol=TOLERANCE)


def test_a_position_becomes_its_row():
  layer = _layer()
  np.testing.assert_array_equal(call(layer, np.zeros((1, 7, 24), np.float32))[0], layer.table_PxD[...][:7])


def test_each_example_has_its_own_position():
  layer, position_B = _layer(), jnp.asarray([5, 2])
  np.testing.assert_array_equal(step(layer, jnp.zeros((2, 24)), position_B), layer.table_PxD[...][position_B])


def test_positions_past_the_table_use_its_last_row():
  layer = _layer()
  np.testing.assert_array_equal(step(layer, jnp.zeros((1, 24)), jnp.asarray([9])), layer.table_PxD[...][8:])


def test_a_sequence_longer_than_the_table_is_refused():
  with pytest.raises(ValueError, match='a sequence of 10 tokens is longer than the 9 positions'):
    _layer()(jnp.zeros((1, 10, 24)))


@pytest.mark.parametrize(('max_offset', 'n_starts'), [(1, 2), (100, 3)])
def test_offsets_end_at_the_largest_offset_or_the_end_of_the_table(max_offset, n_starts):
  layer = _layer(max_offset=max_offset, start_from_zero=0.0)
  y_BxTxD = np.asarray(call(layer, np.zeros((200, 7, 24), np.float32), key=jax.random.key(0)))
  shifted = [np.asarray(layer.table_PxD[...][start : start + 7]) for start in range(n_starts)]
  is_shifted_BxS = np.stack([(y_BxTxD == rows).all((1, 2)) for rows in shifted], 1)
  assert is_shifted_BxS.any(1).all() and is_shifted_BxS.any(0).all()
