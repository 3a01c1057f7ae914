"""Which places of a decoding cache are filled.

A batch of prompts of different lengths stands in the first places of the cache, padding included; what follows is
written into the same place for all examples, behind the longest prompt. A place is then one number, and a write a slice
that the compiler updates where it lies; a place an example would be a scatter, or a copy of the whole cache.

B batch, P places.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Filled:
  """Filled places of a cache, the same in all layers.

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
