"""Where a token stands: sinusoids, and sequences that are written one behind the other.

B batch, S source time, T target time, D d_model, P positions.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.ops.segments import begins, first_positions, positions_within

_TURN = 2**32
_FINE_BITS = 10


def sinusoids(position_x: jax.Array, d_model: int) -> jax.Array:
  """Sinusoids of any positions, ...xD: sines in the even columns, cosines in the odd ones (Vaswani et al., 2017).

  They are exact to 3e-6 up to a million positions, where the product of position and rate, in float32, is off by a
  sixteenth. Angles are counted in integers of 2^-32 turns, which wrap around as angles do, and a position is taken
  as a multiple of 1024 and a rest, so that the rounding of a rate is multiplied by a thousand and not by a million.
  """
  column_D = np.arange(d_model)
  rate_D = np.exp(-(column_D // 2 * 2) * (np.log(1e4) / d_model))
  fine_D, coarse_D = (
    np.rint(rate_D * step / (2 * np.pi) % 1 * _TURN).astype(np.uint64).astype(np.uint32)
    for step in (1, 1 << _FINE_BITS)
  )
  # A cosine is the sine a quarter of a turn on.
  quarter_D = (column_D % 2 * (_TURN // 4)).astype(np.uint32)
  position_x1 = position_x[..., None].astype(jnp.uint32)
  rest_x1 = position_x1 & ((1 << _FINE_BITS) - 1)
  phase_xD = (position_x1 >> _FINE_BITS) * coarse_D + rest_x1 * fine_D + quarter_D
  # As a signed number the phase is within half a turn of 0, where float32 is most exact.
  angle_xD = jax.lax.bitcast_convert_type(phase_xD, jnp.int32).astype(jnp.float32) * (2 * np.pi / _TURN)
  return jnp.sin(angle_xD)


def example_positions(
  batch: int,
  time: int,
  n_starts: int,
  start_from_zero: float,
  *,
  key: jax.Array | None,
  segment_BxT: jax.Array | None = None,
) -> jax.Array:
  """Where the tokens of each example stand.

  Args:
    batch, time: B and T.
    n_starts: in training an example starts at a random position below it.
    start_from_zero: share of the examples that start at 0 all the same.
    key: of these draws; None starts all examples at 0.
    segment_BxT: of packed rows, where every segment is an example; else None.

  Returns:
    position_BxT; the batch axis is 1 where all examples start at 0 and none are packed.
  """
  position_xT = jnp.arange(time)[None] if segment_BxT is None else positions_within(segment_BxT)
  if key is None or n_starts <= 1:
    return position_xT
  share_key, start_key = jax.random.split(key)
  start_xT = draw_by_example(lambda shape: jax.random.randint(start_key, shape, 0, n_starts), batch, segment_BxT)
  at_zero_xT = draw_by_example(
    lambda shape: jax.random.bernoulli(share_key, start_from_zero, shape), batch, segment_BxT
  )
  return jnp.where(at_zero_xT, 0, start_xT) + position_xT


def draw_by_example(
  draw: Callable[[tuple[int, ...]], jax.Array], batch: int, segment_BxT: jax.Array | None
) -> jax.Array:
  """`draw(shape)`, the same for all positions of an example: Bx1, or BxT of packed rows with a draw a segment."""
  if segment_BxT is None:
    return draw((batch, 1))
  return jnp.take_along_axis(draw(segment_BxT.shape), first_positions(segment_BxT), axis=1)


def expect_room(time: int, n_positions: int) -> None:
  """Raises ValueError if a sequence is longer than there are positions."""
  if time > n_positions:
    raise ValueError(f'positions: expected at most {n_positions}, found a sequence of {time}')


def shift_right(tokens_BxT: jax.Array, segment_BxT: jax.Array | None = None) -> jax.Array:
  """The tokens that a causal model reads to predict `tokens_BxT`: token 0, then all but the last, in every segment."""
  shifted_BxT = jnp.pad(tokens_BxT, ((0, 0), (1, 0)))[:, :-1]
  return shifted_BxT if segment_BxT is None else jnp.where(begins(segment_BxT), 0, shifted_BxT)


def write_after(first_BxSxD: jax.Array, n_first_B: jax.Array, second_BxTxD: jax.Array) -> jax.Array:
  """Concatenates two right-padded sequences so that no padding lies between them.

  Args:
    first_BxSxD: of which the first `n_first_B` vectors count.
    n_first_B: from 0 to S.
    second_BxTxD: written from position `n_first_B` on.

  Returns:
    B x (S + T) x D, zero from position n_first + T on (where the authors' code leaves what padding was there).
  """
  s, t = first_BxSxD.shape[1], second_BxTxD.shape[1]
  position_P = jnp.arange(s + t)
  offset_BxP = position_P - n_first_B[:, None]
  source_BxP = jnp.where(offset_BxP < 0, position_P, s + jnp.minimum(offset_BxP, t - 1))
  both_BxPxD = jnp.concatenate([first_BxSxD, second_BxTxD], axis=1)
  written_BxPxD = jnp.take_along_axis(both_BxPxD, source_BxP[..., None], axis=1)
  return jnp.where((offset_BxP < t)[..., None], written_BxPxD, 0)


def read_after(both_BxPxD: jax.Array, n_first_B: jax.Array, length: int) -> jax.Array:
  """The second sequence that `write_after` wrote: `length` vectors from position `n_first_B` on."""
  position_BxT = n_first_B[:, None] + jnp.arange(length)
  return jnp.take_along_axis(both_BxPxD, position_BxT[..., None], axis=1)


def last_positions(x_BxTxD: jax.Array, length_B: jax.Array, width: int) -> jax.Array:
  """The `width` vectors before position `length_B`, zero where there are fewer; B x width x D."""
  position_BxC = length_B[:, None] + jnp.arange(-width, 0)
  taken_BxCxD = jnp.take_along_axis(x_BxTxD, jnp.maximum(position_BxC, 0)[..., None], axis=1)
  return jnp.where((position_BxC >= 0)[..., None], taken_BxCxD, 0)
