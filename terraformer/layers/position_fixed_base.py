"""Positions by their digits in several number systems (the authors' `fixed-base`).

B batch, T time, D d_model, N bases, I digits, W = D / I width of a digit's vector.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import FixedBasePositionsConfig
from terraformer.layers.parameter import parameter
from terraformer.ops.keys import split_key
from terraformer.ops.positions import draw_by_example, example_positions, expect_room
from terraformer.ops.segments import begins


class FixedBasePositions(nnx.Module):
  """Each digit times a trainable vector, the digits one behind the other, added up over the bases.

  Sequences start at random in training, so that all digits are learnt from short ones. What a random start would hide,
  the beginning of a sequence, a vector of its own shows.
  """

  def __init__(self, config: FixedBasePositionsConfig, max_length: int, d_model: int, *, key: jax.Array):
    """All vectors uniform in +-1e-4; the number of positions is a matter of the digits, not of `max_length`."""
    weights_key, start_key = jax.random.split(key)
    shape_NxIxW = (len(config.bases), config.n_digits, d_model // config.n_digits)
    weights_NxIxW = jax.random.uniform(weights_key, shape_NxIxW, minval=-1e-4, maxval=1e-4)
    self.weights_NxIxW = parameter(weights_NxIxW, (None, None, None))
    self.start_D = parameter(jax.random.uniform(start_key, (d_model,), minval=-1e-4, maxval=1e-4), ('embed',))
    self.config = config
    self.n_positions = config.n_positions(max_length)

  def _vectors(self, position_x: jax.Array) -> jax.Array:
    """The digits' part of any positions, ...xD."""
    rest_xN = jnp.broadcast_to(position_x[..., None], (*position_x.shape, len(self.config.bases)))
    base_N = jnp.asarray(self.config.bases)
    digits = []
    # Digit by digit, as the powers of a base may exceed 32 bits.
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
    """Adds T positions, from 0 on, and to the first one the start vector; so in every segment of packed rows.

    With a key most examples start at a random position, and some see no digits at all.

    Raises:
      ValueError: if T is larger than the number of positions.
    """
    batch, time, _ = x_BxTxD.shape
    expect_room(time, self.n_positions)
    start_key, drop_key = split_key(key, 2)
    n_starts = self.n_positions - time
    position_BxT = example_positions(
      batch, time, n_starts, self.config.start_from_zero, key=start_key, segment_BxT=segment_BxT
    )
    vectors_BxTxD = self._vectors(position_BxT)
    if drop_key is not None:
      drop = lambda shape: jax.random.bernoulli(drop_key, self.config.drop, shape)  # noqa: E731
      vectors_BxTxD = jnp.where(draw_by_example(drop, batch, segment_BxT)[..., None], 0, vectors_BxTxD)
    if segment_BxT is None:
      return (x_BxTxD + vectors_BxTxD).at[:, 0].add(self.start_D[...])
    return x_BxTxD + vectors_BxTxD + jnp.where(begins(segment_BxT)[..., None], self.start_D[...], 0)

  def step(self, x_BxD: jax.Array, position_B: jax.Array) -> jax.Array:
    """Adds one position to each example, and to position 0 the start vector."""
    start_BxD = jnp.where(position_B[:, None] == 0, self.start_D[...], 0)
    return x_BxD + self._vectors(position_B) + start_BxD
