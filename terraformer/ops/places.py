"""Which places of a decoding cache are filled, and writing into one.

A batch of prompts of different lengths stands in the first places of the cache, padding included; what follows is
written into the same place for all examples, behind the longest prompt. A place is then one number, and a write a slice
that the compiler updates where it lies; a place an example would be a scatter, or a copy of the whole cache. (It would
copy an array with a batch axis of 1 as well, so batch and heads are one axis.)

B batch, P places, G heads of all examples, K head width.
"""

import dataclasses
from typing import ClassVar, Self

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Filled:
  """Filled places of a cache.

  Attributes:
    prompt_B: of its prompt's places, how many hold one of the example's tokens.
    behind: the first place behind all prompts.
    place: the next one to be written.
  """

  prompt_B: jax.Array
  behind: jax.Array
  place: jax.Array

  def advanced(self) -> 'Filled':
    """After one more position."""
    return dataclasses.replace(self, place=self.place + 1)

  def places(self, n_places: int) -> jax.Array:
    """Whether each of the places counts, BxP."""
    place_P = jnp.arange(n_places)
    return (place_P < self.prompt_B[:, None]) | ((place_P >= self.behind) & (place_P < self.place))


def prompted(length_B: jax.Array, n_places: int) -> Filled:
  """Prompts of `length_B` tokens in the first `n_places` places."""
  behind = jnp.full((), n_places, jnp.int32)
  return Filled(length_B.astype(jnp.int32), behind, behind)


def write_place(x_GxPxK: jax.Array, new_GxK: jax.Array, place: jax.Array, axis: int) -> jax.Array:
  """Keys or values with one place along `axis` written, which must be there: behind the last one, the last is."""
  new = jnp.expand_dims(new_GxK, axis).astype(x_GxPxK.dtype)
  return jax.lax.dynamic_update_slice_in_dim(x_GxPxK, new, place, axis)


class GrowingCache:
  """What caches of attention share: `_kept` names their keys and values, each with its axis of places."""

  _kept: ClassVar[dict[str, int]]

  def grown(self, more: int) -> Self:
    """The same with room for `more` positions behind those there is room for."""
    kept = {name: (getattr(self, name), axis) for name, axis in self._kept.items()}
    room = {name: [(0, more if at == axis else 0) for at in range(x.ndim)] for name, (x, axis) in kept.items()}
    return dataclasses.replace(self, **{name: jnp.pad(x, room[name]) for name, (x, _) in kept.items()})

  def stored(self, dtype: jnp.dtype) -> Self:
    """The same with keys and values in another type; they are computed with in float32 all the same."""
    return dataclasses.replace(self, **{name: getattr(self, name).astype(dtype) for name in self._kept})
