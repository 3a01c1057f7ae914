"""The state of the native library, converted from the model's own decode state after the prompt.

B batch, P slots of the model's cache, Q pages of 64 slots, C positions that a convolution sees, H heads, K head
width.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from terraformer.decode.native.description import Description
from terraformer.models.base import DecodeState
from terraformer.native import layout
from terraformer.native.plan import Plan
from terraformer.ops.kv_cache import COLUMNS


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NativeState:
  """The state that the library keeps between two tokens; each text has its own number of positions.

  Attributes:
    pages: keys and values, uint8, Q x B x bytes.
    state: histories and recurrences, float32, B x numbers.
    memory: keys and values of the source, in the form of `pages`.
    length_B: number of filled positions of each text in `pages`.
    memory_length_B: number of filled positions of each text in `memory`.
    position_B: number of positions read so far, as the decoder counts them.
  """

  pages: jax.Array
  state: jax.Array
  memory: jax.Array
  length_B: jax.Array
  memory_length_B: jax.Array
  position_B: jax.Array

  @property
  def n_slots(self) -> int:
    """Number of positions of each text that the pages can hold."""
    return len(self.pages) * layout.PAGE

  def take(self, row_W: jax.Array) -> 'NativeState':
    """Returns the state of the given batch rows, in their order."""
    paged = {name: jnp.take(getattr(self, name), row_W, axis=1) for name in ('pages', 'memory')}
    rest = {name: getattr(self, name)[row_W] for name in ('state', 'length_B', 'memory_length_B', 'position_B')}
    return NativeState(**paged, **rest)


@dataclasses.dataclass(frozen=True)
class StateSizes:
  """Sizes of the state of one text.

  Attributes:
    page_bytes, memory_page_bytes: bytes of a page of 64 positions, and of one of the source's; the latter is 0 for a
      model without cross-attention.
    numbers: float32 numbers of histories and recurrences.
  """

  page_bytes: int
  memory_page_bytes: int
  numbers: int

  @classmethod
  def of(cls, plan: Plan) -> 'StateSizes':
    """Returns the sizes for a complete plan."""
    return cls(plan.page_bytes, plan.memory_page_bytes, plan.state_numbers)

  def n_bytes(self, n_pages: int, n_memory_pages: int) -> int:
    """Returns the bytes of one text's state with this many pages."""
    return n_pages * self.page_bytes + n_memory_pages * self.memory_page_bytes + 4 * self.numbers


def native_state(description: Description, prompt: DecodeState) -> NativeState:
  """Returns the native state for the model's own state after a prompt."""
  caches, length_B = prompt.layers, prompt.filled.prompt_B
  batch = len(length_B)
  pages = [(kept.at, _pages(description, *_keys_and_values(kept.get(caches), batch))) for kept in description.keys]
  memory, memory_length_B = [], jnp.zeros_like(length_B)
  for kept in description.memories:
    cache = kept.get(caches)
    real_BxS = cache.real_BxS
    memory_length_B = real_BxS.sum(1).astype(jnp.int32)
    n_places = real_BxS.shape[1]
    k_BxHxSxK = cache.k_GxKxS.swapaxes(1, 2).reshape(batch, -1, n_places, cache.v_GxSxK.shape[2])
    memory.append((kept.at, _pages(description, k_BxHxSxK, cache.v_GxSxK.reshape(k_BxHxSxK.shape))))
  plan = description.plan
  histories = [(kept.at, _history(kept.get(caches), length_B)) for kept in description.histories]
  states = [(kept.at, kept.get(caches)) for kept in description.states]
  return NativeState(
    _joined(pages, (0, batch), plan.page_bytes, jnp.uint8),
    _joined(histories + states, (batch,), plan.state_numbers, jnp.float32),
    _joined(memory, (0, batch), plan.memory_page_bytes, jnp.uint8),
    length_B.astype(jnp.int32),
    memory_length_B,
    prompt.position_B,
  )


@functools.partial(jax.jit, static_argnums=1)
def extended(state: NativeState, n_pages: int) -> NativeState:
  """Returns the state with `n_pages` more pages."""
  _, batch, size = state.pages.shape
  more = jnp.zeros((n_pages, batch, size), jnp.uint8)
  return dataclasses.replace(state, pages=jnp.concatenate([state.pages, more]))


def _joined(parts: list[tuple[int, jax.Array]], lead: tuple[int, ...], size: int, dtype) -> jax.Array:
  """Joins (offset, array) pairs along the last axis, with zeros in the gaps up to `size`."""
  if not parts:
    return jnp.zeros((*lead, size), dtype)
  joined, at = [], 0
  for first, part in sorted(parts, key=lambda part: part[0]):
    joined += [jnp.zeros((*part.shape[:-1], first - at), dtype), part]
    at = first + part.shape[-1]
  return jnp.concatenate([*joined, jnp.zeros((*part.shape[:-1], size - at), dtype)], axis=-1)


def _keys_and_values(kv: Any, batch: int) -> tuple[jax.Array, jax.Array]:
  """Returns keys and values, BxHxPxK each."""
  _, capacity, width = kv.v_GxPxK.shape
  k_GxPxK = kv.k.swapaxes(1, 2) if kv.k_axis == COLUMNS else kv.k
  return k_GxPxK.reshape(batch, -1, capacity, width), kv.v_GxPxK.reshape(batch, -1, capacity, width)


def _pages(description: Description, k_BxHxPxK: jax.Array, v_BxHxPxK: jax.Array) -> jax.Array:
  """Returns a layer's pages, uint8, Q x B x bytes: keys as packed matrices of 64 outputs, values of 64 inputs."""
  kind = description.types.cache
  batch, n_heads, n_places, width = k_BxHxPxK.shape
  padding = -n_places % layout.PAGE
  n_pages = (n_places + padding) // layout.PAGE

  def in_pages(x_BxHxPxK):
    x = jnp.pad(x_BxHxPxK.astype(jnp.float32), ((0, 0), (0, 0), (0, padding), (0, 0)))
    return x.reshape(batch, n_heads, n_pages, layout.PAGE, width).transpose(2, 0, 1, 3, 4)  # QxBxHx64xK

  keys, values = in_pages(k_BxHxPxK), in_pages(v_BxHxPxK)
  scales = []
  if kind == 'int8':
    (keys, key_scale), (values, value_scale) = _in_8_bits(keys), _in_8_bits(values)
    scales = [_bytes(key_scale), _bytes(value_scale)]
  parts = [*scales, _packed(keys.swapaxes(-1, -2), kind), _packed(values, kind)]
  heads = jnp.concatenate(parts, axis=-1)
  return heads.reshape(n_pages, batch, -1)


def _in_8_bits(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  scale = jnp.abs(x).max(-1) / 127
  return jnp.rint(x / jnp.where(scale > 0, scale, 1)[..., None]), scale


def _packed(x: jax.Array, kind: str) -> jax.Array:
  """Returns matrices ...xKxN in the packed layout without scales, as bytes; see `native.layout`."""
  *lead, n_inputs, n_outputs = x.shape
  x = jnp.pad(x, ((0, 0),) * len(lead) + ((0, n_inputs % 2), (0, -n_outputs % layout.PANEL)))
  x = x.reshape(*lead, -1, 2, x.shape[-1] // layout.PANEL, layout.PANEL)  # pairs, 2, panels, outputs
  at = len(lead)
  order = (at + 2, at, at + 1, at + 3) if kind == 'float32' else (at + 2, at, at + 3, at + 1)
  x = x.transpose(*range(at), *order).astype(kind)
  return _bytes(x.reshape(*lead, -1))


def _bytes(x: jax.Array) -> jax.Array:
  raw = jax.lax.bitcast_convert_type(x, jnp.uint8)
  return raw if x.dtype.itemsize == 1 else raw.reshape(*x.shape[:-1], -1)


def _history(before_BxCxD: jax.Array, length_B: jax.Array) -> jax.Array:
  """Returns the last C - 1 positions in a ring of C slots; position t is in slot t mod C."""
  batch, n_before, width = before_BxCxD.shape
  slot_C = jnp.arange(n_before + 1)
  at_BxC = (slot_C - (length_B[:, None] - n_before)) % (n_before + 1)
  padded_BxCxD = jnp.pad(before_BxCxD, ((0, 0), (0, 1), (0, 0)))
  return jnp.take_along_axis(padded_BxCxD, at_BxC[..., None], axis=1).reshape(batch, -1)
