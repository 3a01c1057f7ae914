"""Positions as a trainable table.

B batch, T time, D d_model, P positions.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import TablePositionsConfig
from terraformer.layers.parameter import parameter
from terraformer.ops.positions import example_positions, expect_room, sinusoids


class PositionTable(nnx.Module):
  """A trainable vector a position; they start as sinusoids."""

  def __init__(self, config: TablePositionsConfig, max_length: int, d_model: int, *, key: jax.Array):
    """Nothing is random, so that `key` is not used."""
    table_PxD = sinusoids(jnp.arange(config.n_positions(max_length)), d_model)
    self.table_PxD = parameter(table_PxD, (None, 'embed'), row_axis=-2, stays_float32=True)  # positions are few
    self.config = config

  def __call__(
    self, x_BxTxD: jax.Array, *, key: jax.Array | None = None, segment_BxT: jax.Array | None = None
  ) -> jax.Array:
    """Adds T positions, from 0 on, in every segment of packed rows; with a key some examples start later, as far as the
    table reaches.

    Raises:
      ValueError: if T is larger than the table.
    """
    batch, time, _ = x_BxTxD.shape
    n_positions = self.table_PxD[...].shape[0]
    expect_room(time, n_positions)
    n_starts = 1 + min(self.config.max_offset, n_positions - time)
    position_BxT = example_positions(
      batch, time, n_starts, self.config.start_from_zero, key=key, segment_BxT=segment_BxT
    )
    return x_BxTxD + self.table_PxD[...][position_BxT]

  def step(self, x_BxD: jax.Array, position_B: jax.Array) -> jax.Array:
    """Adds one position to each example; positions beyond the table take its last one."""
    return x_BxD + self.table_PxD[...].at[position_B].get(mode='clip')
