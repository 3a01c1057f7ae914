"""Layers that add vectors of positions, trainable or computed.

B batch, T time, D d_model, P positions. Fixed-base positions: N bases, I digits, W = D / I width of a digit's vector.
Axial positions: C values of a coordinate, W width of its vectors.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import (
  AxialPositionsConfig,
  FixedBasePositionsConfig,
  SinusoidPositionsConfig,
  TablePositionsConfig,
)
from terraformer.layers.parameter import parameter
from terraformer.ops.keys import split_key
from terraformer.ops.positions import check_length, example_positions, sample_by_example, sinusoids
from terraformer.ops.segments import positions_within, segment_starts


class PositionTable(nnx.Module):
  """A trainable vector per position, initialized with sinusoids."""

  def __init__(self, config: TablePositionsConfig, max_length: int, d_model: int, *, key: jax.Array):
    """`key` is unused, since nothing is random."""
    table_PxD = sinusoids(jnp.arange(config.n_positions(max_length)), d_model)
    self.table_PxD = parameter(table_PxD, (None, 'embed'), row_axis=-2, stays_float32=True)  # positions are few
    self.config = config

  def __call__(
    self, x_BxTxD: jax.Array, *, key: jax.Array | None = None, segment_BxT: jax.Array | None = None
  ) -> jax.Array:
    """Adds positions from 0 on, in every segment of packed rows.

    With a key (training), some examples start at a later position, within the table.

    Raises:
      ValueError: if T is larger than the table.
    """
    batch, time, _ = x_BxTxD.shape
    n_positions = self.table_PxD[...].shape[0]
    check_length(time, n_positions)
    n_starts = 1 + min(self.config.max_offset, n_positions - time)
    position_BxT = example_positions(
      batch, time, n_starts, self.config.start_from_zero, key=key, segment_BxT=segment_BxT
    )
    return x_BxTxD + self.table_PxD[...][position_BxT]

  def step(self, x_BxD: jax.Array, position_B: jax.Array) -> jax.Array:
    """Adds one position to each example; positions past the table use its last vector."""
    return x_BxD + self.table_PxD[...].at[position_B].get(mode='clip')


class SinusoidPositions(nnx.Module):
  """Sines and cosines of the position (Vaswani et al., 2017), computed without a table, for any length."""

  def __init__(self, config: SinusoidPositionsConfig, max_length: int, d_model: int, *, key: jax.Array):
    """`key` is unused, since there are no parameters. `max_length` only limits the random starts."""
    self.config = config
    self.n_positions = config.n_positions(max_length)
    self.d_model = d_model

  def __call__(
    self, x_BxTxD: jax.Array, *, key: jax.Array | None = None, segment_BxT: jax.Array | None = None
  ) -> jax.Array:
    """Adds positions from 0 on, in every segment of packed rows.

    With a key (training), some examples start at a later position and end within `max_length`.
    """
    batch, time, _ = x_BxTxD.shape
    n_starts = 1 + min(self.config.max_offset, self.n_positions - time)
    position_BxT = example_positions(
      batch, time, n_starts, self.config.start_from_zero, key=key, segment_BxT=segment_BxT
    )
    return x_BxTxD + sinusoids(position_BxT, self.d_model)

  def step(self, x_BxD: jax.Array, position_B: jax.Array) -> jax.Array:
    """Adds one position to each example."""
    return x_BxD + sinusoids(position_B, self.d_model)


class FixedBasePositions(nnx.Module):
  """The digits of a position, each times a trainable vector, concatenated, and summed over several bases.

  In training, sequences start at random positions, so short sequences train all digits. A separate trainable vector
  marks the start of a sequence.
  """

  def __init__(self, config: FixedBasePositionsConfig, max_length: int, d_model: int, *, key: jax.Array):
    """Initializes all vectors uniform in +-1e-4. Bases and digits set the number of positions, not `max_length`."""
    weights_key, start_key = jax.random.split(key)
    shape_NxIxW = (len(config.bases), config.n_digits, d_model // config.n_digits)
    weights_NxIxW = jax.random.uniform(weights_key, shape_NxIxW, minval=-1e-4, maxval=1e-4)
    self.weights_NxIxW = parameter(weights_NxIxW, (None, None, None))
    self.start_D = parameter(jax.random.uniform(start_key, (d_model,), minval=-1e-4, maxval=1e-4), ('embed',))
    self.config = config
    self.n_positions = config.n_positions(max_length)

  def _vectors(self, position_x: jax.Array) -> jax.Array:
    """Returns the vectors of any positions, ...xD, without the start vector."""
    rest_xN = jnp.broadcast_to(position_x[..., None], (*position_x.shape, len(self.config.bases)))
    base_N = jnp.asarray(self.config.bases)
    digits = []
    # Digit by digit, because powers of a base can exceed 32 bits.
    for _ in range(self.config.n_digits):
      digits.append(rest_xN % base_N)
      rest_xN //= base_N
    weights_NxIxW = self.weights_NxIxW[...]
    digit_xNxI = jnp.stack(digits, axis=-1).astype(weights_NxIxW.dtype)
    vectors_xIxW = jnp.einsum('...NI,NIW->...IW', digit_xNxI, weights_NxIxW)
    return vectors_xIxW.reshape(*position_x.shape, -1)

  def __call__(
    self, x_BxTxD: jax.Array, *, key: jax.Array | None = None, segment_BxT: jax.Array | None = None
  ) -> jax.Array:
    """Adds positions from 0 on, and the start vector to the first position, in every segment of packed rows.

    With a key (training), most examples start at a random position, and some get no vectors except the start vector.

    Raises:
      ValueError: if T is larger than the number of positions.
    """
    batch, time, _ = x_BxTxD.shape
    check_length(time, self.n_positions)
    start_key, drop_key = split_key(key, 2)
    n_starts = self.n_positions - time
    position_BxT = example_positions(
      batch, time, n_starts, self.config.start_from_zero, key=start_key, segment_BxT=segment_BxT
    )
    vectors_BxTxD = self._vectors(position_BxT)
    if drop_key is not None:
      drop = lambda shape: jax.random.bernoulli(drop_key, self.config.drop, shape)  # noqa: E731
      vectors_BxTxD = jnp.where(sample_by_example(drop, batch, segment_BxT)[..., None], 0, vectors_BxTxD)
    if segment_BxT is None:
      return (x_BxTxD + vectors_BxTxD).at[:, 0].add(self.start_D[...])
    return x_BxTxD + vectors_BxTxD + jnp.where(segment_starts(segment_BxT)[..., None], self.start_D[...], 0)

  def step(self, x_BxD: jax.Array, position_B: jax.Array) -> jax.Array:
    """Adds one position to each example, and the start vector to position 0."""
    start_BxD = jnp.where(position_B[:, None] == 0, self.start_D[...], 0)
    return x_BxD + self._vectors(position_B) + start_BxD


class AxialPositions(nnx.Module):
  """Positions on a grid, with a trainable vector for each value of each coordinate.

  The vector of a position is the concatenation of its coordinates' vectors. A grid of 1024 x 1024 has a million
  positions and 2048 vectors.
  """

  def __init__(self, config: AxialPositionsConfig, max_length: int, d_model: int, *, key: jax.Array):
    """Initializes vectors N(0, 1). The grid sets the number of positions; the vectors' widths add up to d_model."""
    keys = jax.random.split(key, len(config.shape))
    self.tables_CxW = nnx.List(
      [
        parameter(jax.random.normal(one, table_shape), (None, None), row_axis=-2, stays_float32=True)
        for one, table_shape in zip(keys, zip(config.shape, config.widths, strict=True), strict=True)
      ]
    )
    self.config = config

  def _vectors(self, position_x: jax.Array) -> jax.Array:
    """Returns the vectors of positions within the grid, ...xD."""
    coordinates = jnp.unravel_index(position_x, self.config.shape)
    vectors = [table_CxW[...][at_x] for table_CxW, at_x in zip(self.tables_CxW, coordinates, strict=True)]
    return jnp.concatenate(vectors, axis=-1)

  def __call__(
    self, x_BxTxD: jax.Array, *, key: jax.Array | None = None, segment_BxT: jax.Array | None = None
  ) -> jax.Array:
    """Adds positions from 0 on, in every segment of packed rows, both in training and in evaluation.

    Raises:
      ValueError: if T is larger than the grid.
    """
    time = x_BxTxD.shape[1]
    check_length(time, math.prod(self.config.shape))
    return x_BxTxD + self._vectors(jnp.arange(time) if segment_BxT is None else positions_within(segment_BxT))

  def step(self, x_BxD: jax.Array, position_B: jax.Array) -> jax.Array:
    """Adds one position to each example; positions past the grid use its last one."""
    return x_BxD + self._vectors(jnp.minimum(position_B, math.prod(self.config.shape) - 1))
