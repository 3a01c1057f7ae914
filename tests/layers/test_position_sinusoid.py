"""D 24."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import SinusoidPositionsConfig
from terraformer.layers.positions import SinusoidPositions
from terraformer.ops.positions import sinusoids
from tests.weights import call, step

ZEROS = np.zeros((200, 7, 24), np.float32)


def _layer(**config):
  return SinusoidPositions(SinusoidPositionsConfig(**config), 9, 24, key=jax.random.key(0))


def test_there_are_no_parameters():
  assert not jax.tree.leaves(_layer())


def test_positions_are_sinusoids_from_zero_on():
  np.testing.assert_allclose(call(_layer(), ZEROS)[3], sinusoids(jnp.arange(7), 24), atol=1e-6)


def test_each_example_has_its_own_position_however_late():
  position_B = jnp.asarray([5, 999_999])
  np.testing.assert_allclose(step(_layer(), jnp.zeros((2, 24)), position_B), sinusoids(position_B, 24), atol=1e-6)


@pytest.mark.parametrize(('max_offset', 'n_starts'), [(1, 2), (100, 3)])
def test_offsets_end_at_the_largest_offset_or_the_last_position(max_offset, n_starts):
  y_BxTxD = np.asarray(call(_layer(max_offset=max_offset, start_from_zero=0.0), ZEROS, key=jax.random.key(0)))
  shifted_SxTxD = sinusoids(jnp.arange(n_starts)[:, None] + jnp.arange(7), 24)
  is_shifted_BxS = np.abs(y_BxTxD[:, None] - shifted_SxTxD).max((2, 3)) < 1e-5
  assert is_shifted_BxS.any(1).all() and is_shifted_BxS.any(0).all()
