"""Positions as points of a grid (Reformer, Kitaev et al., 2020).

B batch, T time, D d_model, C points along a coordinate, W width of its vectors.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import AxialPositionsConfig
from terraformer.layers.parameter import parameter
from terraformer.ops.positions import expect_room
from terraformer.ops.segments import positions_within


class AxialPositions(nnx.Module):
  """A trainable vector for each value of each coordinate; a position is those of its coordinates one after the other.

  A grid of 1024 x 1024 has a million positions and 2048 vectors.
  """

  def __init__(self, config: AxialPositionsConfig, max_length: int, d_model: int, *, key: jax.Array):
    """Vectors N(0, 1); the grid gives the number of positions, and the widths d_model."""
    keys = jax.random.split(key, len(config.shape))
    self.tables_CxW = nnx.List(
      [
        parameter(jax.random.normal(one, table_shape), (None, None), row_axis=-2, stays_float32=True)
        for one, table_shape in zip(keys, zip(config.shape, config.widths, strict=True), strict=True)
      ]
    )
    self.config = config

  def _vectors(self, position_x: jax.Array) -> jax.Array:
    """Of positions within the grid, ...xD."""
    coordinates = jnp.unravel_index(position_x, self.config.shape)
    vectors = [table_CxW[...][at_x] for table_CxW, at_x in zip(self.tables_CxW, coordinates, strict=True)]
    return jnp.concatenate(vectors, axis=-1)

  def __call__(
    self, x_BxTxD: jax.Array, *, key: jax.Array | None = None, segment_BxT: jax.Array | None = None
  ) -> jax.Array:
    """Adds the first T positions, in training (with a key) as in evaluation; they begin anew in every segment.

    Raises:
      ValueError: if T is larger than the grid.
    """
    time = x_BxTxD.shape[1]
    expect_room(time, math.prod(self.config.shape))
    return x_BxTxD + self._vectors(jnp.arange(time) if segment_BxT is None else positions_within(segment_BxT))

  def step(self, x_BxD: jax.Array, position_B: jax.Array) -> jax.Array:
    """Adds one position to each example; positions beyond the grid take its last one."""
    return x_BxD + self._vectors(jnp.minimum(position_B, math.prod(self.config.shape) - 1))
