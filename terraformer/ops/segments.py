"""Segments of packed rows: every token has the number of its segment and sees no other segment.

B batch, S source time, T target time, P = S + T, K keys, C queries per chunk, D d_model.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Segments:
  """The segments of a packed batch. A row has its examples one after another from the left, then padding.

  Attributes:
    inputs_BxS, targets_BxT: segment of each token, int32, from 1 up; a source and its target share a number. 0 is
      padding.
  """

  inputs_BxS: jax.Array
  targets_BxT: jax.Array


def segment_starts(segment_BxT: jax.Array) -> jax.Array:
  """Returns whether each position is the first of its segment, BxT."""
  return jnp.diff(segment_BxT, prepend=-1) != 0


def first_positions(segment_BxT: jax.Array) -> jax.Array:
  """Returns, for each position, the first position of its segment, int32 BxT."""
  position_BxT = jax.lax.broadcasted_iota(jnp.int32, segment_BxT.shape, 1)
  return jax.lax.cummax(jnp.where(segment_starts(segment_BxT), position_BxT, 0), axis=1)


def positions_within(segment_BxT: jax.Array) -> jax.Array:
  """Returns positions that count from 0 in every segment, int32 BxT."""
  return jax.lax.broadcasted_iota(jnp.int32, segment_BxT.shape, 1) - first_positions(segment_BxT)


def taps_within(x_BxTx: jax.Array, segment_BxT: jax.Array, width: int) -> jax.Array:
  """Returns the `width` vectors that end at each position, B x T x width x ...; zeros before its segment."""
  time, position_BxT = x_BxTx.shape[1], positions_within(segment_BxT)

  def before(distance: int) -> jax.Array:
    shifted = jnp.pad(x_BxTx, ((0, 0), (distance, 0)) + ((0, 0),) * (x_BxTx.ndim - 2))[:, :time]
    inside = (position_BxT >= distance).reshape(*position_BxT.shape, *[1] * (x_BxTx.ndim - 2))
    return jnp.where(inside, shifted, 0)

  return jnp.stack([before(distance) for distance in reversed(range(width))], axis=2)


def in_same_segment(segment_BxT: jax.Array, key_segment_BxK: jax.Array, position_C: jax.Array) -> jax.Array:
  """Returns whether each query at `position_C` is in the same segment as each key, BxCxK.

  Positions past the end count as the last one.
  """
  return jnp.take(segment_BxT, position_C, axis=1, mode='clip')[:, :, None] == key_segment_BxK[:, None]


class Interleaved:
  """Merges sources and targets of packed rows into one sequence: each target follows its source; padding is last.

  Attributes:
    segment_BxP: segment of every position of the sequence.
  """

  def __init__(self, segments: Segments):
    """Computes the order of the sequence from the segments of sources and targets."""
    segment_BxP = jnp.concatenate([segments.inputs_BxS, segments.targets_BxT], axis=1)
    is_target_P = jnp.arange(segment_BxP.shape[1]) >= segments.inputs_BxS.shape[1]
    last = jnp.iinfo(jnp.int32).max
    rank_BxP = jnp.where(segment_BxP > 0, 2 * segment_BxP + is_target_P, last)
    self._order_BxP = jnp.argsort(rank_BxP, axis=1, stable=True)
    self._position_BxT = jnp.argsort(self._order_BxP, axis=1)[:, segments.inputs_BxS.shape[1] :]
    self.segment_BxP = jnp.take_along_axis(segment_BxP, self._order_BxP, axis=1)

  def write(self, first_BxSxD: jax.Array, second_BxTxD: jax.Array) -> jax.Array:
    """Returns the merged sequence, BxPxD, of vectors of the sources and of the targets."""
    both_BxPxD = jnp.concatenate([first_BxSxD, second_BxTxD], axis=1)
    return jnp.take_along_axis(both_BxPxD, self._order_BxP[..., None], axis=1)

  def read(self, both_BxPxD: jax.Array) -> jax.Array:
    """Returns the vectors of the targets, BxTxD."""
    return jnp.take_along_axis(both_BxPxD, self._position_BxT[..., None], axis=1)
