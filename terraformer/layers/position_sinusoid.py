"""Positions as sinusoids that are computed where they are needed.

B batch, T time, D d_model.
"""

import jax
from flax import nnx

from terraformer.config import SinusoidPositionsConfig
from terraformer.ops.positions import example_positions, sinusoids


class SinusoidPositions(nnx.Module):
  """Sines and cosines of the position (Vaswani et al., 2017); nothing is stored, so that any length costs the same."""

  def __init__(self, config: SinusoidPositionsConfig, max_length: int, d_model: int, *, key: jax.Array):
    """There are no parameters, so that `key` is not used; `max_length` bounds the random starts alone."""
    self.config = config
    self.n_positions = config.n_positions(max_length)
    self.d_model = d_model

  def __call__(
    self, x_BxTxD: jax.Array, *, key: jax.Array | None = None, segment_BxT: jax.Array | None = None
  ) -> jax.Array:
    """Adds T positions, from 0 on, in every segment of packed rows; with a key some examples start later, and end
    within `max_length`."""
    batch, time, _ = x_BxTxD.shape
    n_starts = 1 + min(self.config.max_offset, self.n_positions - time)
    position_BxT = example_positions(
      batch, time, n_starts, self.config.start_from_zero, key=key, segment_BxT=segment_BxT
    )
    return x_BxTxD + sinusoids(position_BxT, self.d_model)

  def step(self, x_BxD: jax.Array, position_B: jax.Array) -> jax.Array:
    """Adds one position to each example."""
    return x_BxD + sinusoids(position_B, self.d_model)
