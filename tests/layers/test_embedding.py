import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.layers.embedding import Embedding, PositionTable
from tests.reference.vectors import TOLERANCE, load
from tests.weights import build


def test_a_token_is_its_row_unscaled():
  layer = build(lambda key: Embedding(11, 24, key=key))
  tokens_BxT = jnp.asarray([[3, 0, 10], [1, 1, 2]])
  np.testing.assert_array_equal(layer(tokens_BxT), np.asarray(layer.table_VxD[...])[tokens_BxT])


def test_initial_positions_are_added_as_in_the_reference():
  r = load('layernorm_positional')
  np.testing.assert_allclose(PositionTable(9, 16)(r['x']), r['pos_y_initial'], atol=TOLERANCE)


@pytest.mark.parametrize('position', [0, 4, 8])
def test_a_position_step_equals_call(position):
  layer = build(lambda key: PositionTable(9, 24))
  x_BxTxD = np.random.default_rng(0).normal(size=(2, 9, 24)).astype(np.float32)
  stepped = layer.step(x_BxTxD[:, position], jnp.full(2, position))
  np.testing.assert_array_equal(stepped, layer(x_BxTxD)[:, position])


def test_each_example_has_its_own_position():
  layer = build(lambda key: PositionTable(9, 24))
  position_B = jnp.asarray([5, 2])
  np.testing.assert_array_equal(layer.step(jnp.zeros((2, 24)), position_B), layer.table_PxD[...][position_B])


def test_positions_beyond_the_table_take_its_last_one():
  layer = build(lambda key: PositionTable(9, 24))
  np.testing.assert_array_equal(layer.step(jnp.zeros((1, 24)), jnp.asarray([9])), layer.table_PxD[...][8:])


def test_a_sequence_longer_than_the_table_is_refused():
  with pytest.raises(ValueError, match='expected at most 9, found a sequence of 10'):
    PositionTable(9, 24)(jnp.zeros((1, 10, 24)))
