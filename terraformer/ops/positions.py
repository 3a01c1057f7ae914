"""Positions of tokens, sinusoids, and concatenation of padded sequences.

B batch, S source time, T target time, D d_model, P positions.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.ops.segments import first_positions, positions_within, segment_starts

_TURN = 2**32
_FINE_BITS = 10


def sinusoids(position_x: jax.Array, d_model: int) -> jax.Array:
  """Returns sinusoids of any positions, ...xD: sines in even columns, cosines in odd ones (Vaswani et al., 2017).

  They are exact to 3e-6 up to a million positions, where a float32 product of position and rate is off by 1/16.
  Angles are integers in units of 2^-32 turns, which wrap around as angles do. A position is split into a multiple of
  1024 and a remainder, so the rounding error of a rate is multiplied by a thousand instead of a million.
  """
  column_D = np.arange(d_model)
  rate_D = np.exp(-(column_D // 2 * 2) * (np.log(1e4) / d_model))
  fine_D, coarse_D = (
    np.rint(rate_D * step / (2 * np.pi) % 1 * _TURN).astype(np.uint64).astype(np.uint32)
    for step in (1, 1 << _FINE_BITS)
  )
  # A cosine is a sine a quarter turn later.
  quarter_D = (column_D % 2 * (_TURN // 4)).astype(np.uint32)
  position_x1 = position_x[..., None].astype(jnp.uint32)
  rest_x1 = position_x1 & ((1 << _FINE_BITS) - 1)
  phase_xD = (position_x1 >> _FINE_BITS) * coarse_D + rest_x1 * fine_D + quarter_D
  # As a signed integer, the phase is within half a turn of 0, where float32 is most precise.
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
  """Returns the positions of each example's tokens.

  Args:
    batch, time: B and T.
    n_starts: in training, an example starts at a random position below this.
    start_from_zero: share of the examples that start at 0 nevertheless.
    key: random key; None starts all examples at 0.
    segment_BxT: segments of packed rows, each of which is an example; else None.

  Returns:
    position_BxT; the batch axis is 1 if all examples start at 0 and none are packed.
  """
  position_xT = jnp.arange(time)[None] if segment_BxT is None else positions_within(segment_BxT)
  if key is None or n_starts <= 1:
    return position_xT
  share_key, start_key = jax.random.split(key)
  start_xT = sample_by_example(lambda shape: jax.random.randint(start_key, shape, 0, n_starts), batch, segment_BxT)
  at_zero_xT = sample_by_example(
    lambda shape: jax.random.bernoulli(share_key, start_from_zero, shape), batch, segment_BxT
  )
  return jnp.where(at_zero_xT, 0, start_xT) + position_xT


def sample_by_example(
  sample: Callable[[tuple[int, ...]], jax.Array], batch: int, segment_BxT: jax.Array | None
) -> jax.Array:
  """Returns one sample per example: Bx1, or BxT for packed rows, where all positions of a segment share one sample.

  Args:
    sample: returns random values of the given shape.
    batch: B.
    segment_BxT: segments of packed rows, each of which is an example; else None.
  """
  if segment_BxT is None:
    return sample((batch, 1))
  return jnp.take_along_axis(sample(segment_BxT.shape), first_positions(segment_BxT), axis=1)


def check_length(time: int, n_positions: int) -> None:
  """Raises ValueError if a sequence is longer than `n_positions`."""
  if time > n_positions:
    raise ValueError(f'a sequence of {time} tokens is longer than the {n_positions} positions of the model')


def shift_right(tokens_BxT: jax.Array, segment_BxT: jax.Array | None = None) -> jax.Array:
  """Returns what a causal model reads to predict `tokens_BxT`: in each segment, 0 and then all tokens but the last."""
  shifted_BxT = jnp.pad(tokens_BxT, ((0, 0), (1, 0)))[:, :-1]
  return shifted_BxT if segment_BxT is None else jnp.where(segment_starts(segment_BxT), 0, shifted_BxT)


def write_after(first_BxSxD: jax.Array, n_first_B: jax.Array, second_BxTxD: jax.Array) -> jax.Array:
  """Concatenates two right-padded sequences without the padding between them.

  Args:
    first_BxSxD: the first sequence; only its first `n_first_B` vectors are used.
    n_first_B: from 0 to S.
    second_BxTxD: the second sequence, written from position `n_first_B` on.

  Returns:
    B x (S + T) x D, zero from position n_first + T on (the authors' code leaves the padding vectors there).
  """
  s, t = first_BxSxD.shape[1], second_BxTxD.shape[1]
  position_P = jnp.arange(s + t)
  offset_BxP = position_P - n_first_B[:, None]
  source_BxP = jnp.where(offset_BxP < 0, position_P, s + jnp.minimum(offset_BxP, t - 1))
  both_BxPxD = jnp.concatenate([first_BxSxD, second_BxTxD], axis=1)
  written_BxPxD = jnp.take_along_axis(both_BxPxD, source_BxP[..., None], axis=1)
  return jnp.where((offset_BxP < t)[..., None], written_BxPxD, 0)


def read_after(both_BxPxD: jax.Array, n_first_B: jax.Array, length: int) -> jax.Array:
  """Returns the second sequence that `write_after` wrote: `length` vectors from position `n_first_B` on."""
  position_BxT = n_first_B[:, None] + jnp.arange(length)
  return jnp.take_along_axis(both_BxPxD, position_BxT[..., None], axis=1)


def last_positions(x_BxTxD: jax.Array, length_B: jax.Array, width: int) -> jax.Array:
  """Returns the `width` vectors before position `length_B`, B x width x D, zero before position 0."""
  position_BxC = length_B[:, None] + jnp.arange(-width, 0)
  taken_BxCxD = jnp.take_along_axis(x_BxTxD, jnp.maximum(position_BxC, 0)[..., None], axis=1)
  return jnp.where((position_BxC >= 0)[..., None], taken_BxCxD, 0)
