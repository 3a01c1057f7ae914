"""Several examples in one row: every token has the number of its segment, and sees no other one.

B batch, S source time, T target time, P places for both, K keys, D d_model.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Segments:
  """Where the examples of a batch stand in their rows: one after another from the left, then padding.

  Attributes:
    inputs_BxS, targets_BxT: int32, from 1 on; a source and its target have the same number. 0 is padding.
  """

  inputs_BxS: jax.Array
  targets_BxT: jax.Array


def begins(segment_BxT: jax.Array) -> jax.Array:
  """Whether a position is the first one of its segment, BxT."""
  return jnp.diff(segment_BxT, prepend=-1) != 0


def first_positions(segment_BxT: jax.Array) -> jax.Array:
  """Where the segment of each position begins, int32 BxT."""
  position_BxT = jax.lax.broadcasted_iota(jnp.int32, segment_BxT.shape, 1)
  return jax.lax.cummax(jnp.where(begins(segment_BxT), position_BxT, 0), axis=1)


def positions_within(segment_BxT: jax.Array) -> jax.Array:
  """Positions that count from 0 in every segment, int32 BxT."""
  return jax.lax.broadcasted_iota(jnp.int32, segment_BxT.shape, 1) - first_positions(segment_BxT)


def taps_within(x_BxTx: jax.Array, segment_BxT: jax.Array, width: int) -> jax.Array:
  """Of every position the `width` vectors that end with its own, B x T x width x ...: zeros before its segment."""
  time, position_BxT = x_BxTx.shape[1], positions_within(segment_BxT)

  def before(distance: int) -> jax.Array:
    shifted = jnp.pad(x_BxTx, ((0, 0), (distance, 0)) + ((0, 0),) * (x_BxTx.ndim - 2))[:, :time]
    inside = (position_BxT >= distance).reshape(*position_BxT.shape, *[1] * (x_BxTx.ndim - 2))
    return jnp.where(inside, shifted, 0)

  return jnp.stack([before(distance) for distance in reversed(range(width))], axis=2)


def in_same_segment(segment_BxT: jax.Array, key_segment_BxK: jax.Array, position_C: jax.Array) -> jax.Array:
  """Whether the queries at `position_C` are of the keys' segment, BxCxK; those behind the last are as the last."""
  return jnp.take(segment_BxT, position_C, axis=1, mode='clip')[:, :, None] == key_segment_BxK[:, None]


class Interleaved:
  """Sources and targets of packed rows on one sequence, each target right behind its source, and padding at the end.

  Attributes:
    segment_BxP: of every place.
  """

  def __init__(self, segments: Segments):
    """P is S + T."""
    segment_BxP = jnp.concatenate([segments.inputs_BxS, segments.targets_BxT], axis=1)
    is_target_P = jnp.arange(segment_BxP.shape[1]) >= segments.inputs_BxS.shape[1]
    last = jnp.iinfo(jnp.int32).max
    rank_BxP = jnp.where(segment_BxP > 0, 2 * segment_BxP + is_target_P, last)
    self._order_BxP = jnp.argsort(rank_BxP, axis=1, stable=True)
    self._place_BxT = jnp.argsort(self._order_BxP, axis=1)[:, segments.inputs_BxS.shape[1] :]
    self.segment_BxP = jnp.take_along_axis(segment_BxP, self._order_BxP, axis=1)

  def write(self, first_BxSxD: jax.Array, second_BxTxD: jax.Array) -> jax.Array:
    """The sequence BxPxD of what belongs to the sources and to the targets."""
    both_BxPxD = jnp.concatenate([first_BxSxD, second_BxTxD], axis=1)
    return jnp.take_along_axis(both_BxPxD, self._order_BxP[..., None], axis=1)

  def read(self, both_BxPxD: jax.Array) -> jax.Array:
    """What belongs to the targets, BxTxD."""
    return jnp.take_along_axis(both_BxPxD, self._place_BxT[..., None], axis=1)
