"""The filled slots of a KV cache.

Prompts of different lengths fill the first slots of the cache, padding included. Each decoded token is then written
to the same slot in all examples, after the longest prompt. The slot is therefore one number, and the compiler updates
a slice in place; a different slot for each example would need a scatter, or a copy of the whole cache.

B batch, P slots.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FilledSlots:
  """The filled slots of a cache, the same in all layers.

  Attributes:
    prompt_B: number of prompt tokens of each example; its other prompt slots are padding.
    first_new: index of the first slot after all prompts.
    next_slot: index of the slot to write next.
  """

  prompt_B: jax.Array
  first_new: jax.Array
  next_slot: jax.Array

  def advanced(self) -> 'FilledSlots':
    """Returns the filled slots after one more position."""
    return dataclasses.replace(self, next_slot=self.next_slot + 1)

  def mask(self, n_slots: int) -> jax.Array:
    """Returns the attention mask over the slots, BxP: True where a slot holds a token of the example."""
    slot_P = jnp.arange(n_slots)
    return (slot_P < self.prompt_B[:, None]) | ((slot_P >= self.first_new) & (slot_P < self.next_slot))


def prompt_slots(length_B: jax.Array, n_slots: int) -> FilledSlots:
  """Returns the filled slots after prompts of `length_B` tokens were written to the first `n_slots` slots."""
  first_new = jnp.full((), n_slots, jnp.int32)
  return FilledSlots(length_B.astype(jnp.int32), first_new, first_new)
