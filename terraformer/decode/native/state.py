"""The state of the native library, converted from the model's own decode state after the prompt.

B batch, P slots of the model's cache, Q pages of 64 slots, C positions that a convolution sees, H heads, K head
width, R rounds, N buckets, S slots per bucket.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.decode.native.description import Description
from terraformer.models.base import DecodeState
from terraformer.native import layout
from terraformer.native.plan import Plan
from terraformer.ops.kv_cache import COLUMNS, KVCache
from terraformer.ops.recent_keys import RecentKeys


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NativeState:
  """The state that the library keeps between two tokens; each text has its own number of positions.

  Attributes:
    number: the library's number of the model that the state is for.
    pages: keys and values, uint8, Q x B x bytes.
    state: histories and recurrences, float32, B x numbers.
    tables: recent positions in the buckets of hashed attention, int32, B x numbers.
    memory: keys and values of the source, in the form of `pages`.
    length_B: number of filled positions of each text in `pages`.
    memory_length_B: number of filled positions of each text in `memory`.
    position_B: number of positions read so far, as the decoder counts them.
  """

  number: jax.Array
  pages: jax.Array
  state: jax.Array
  tables: jax.Array
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
    names = ('state', 'tables', 'length_B', 'memory_length_B', 'position_B')
    return dataclasses.replace(self, **paged, **{name: getattr(self, name)[row_W] for name in names})


@dataclasses.dataclass(frozen=True)
class StateSizes:
  """Sizes of the state of one text, in a cache that is not hashed.

  Attributes:
    number: the library's number of the model.
    page_bytes, memory_page_bytes: bytes of a page of 64 positions, and of one of the source's; the latter is 0 for a
      model without cross-attention.
    numbers: float32 numbers of histories and recurrences.
  """

  number: int
  page_bytes: int
  memory_page_bytes: int
  numbers: int

  @classmethod
  def of(cls, plan: Plan, number: int) -> 'StateSizes':
    """Returns the sizes for a complete plan that the library opened under a number."""
    return cls(number, plan.page_bytes, plan.memory_page_bytes, plan.state_numbers)

  def n_bytes(self, n_pages: int, n_memory_pages: int) -> int:
    """Returns the bytes of one text's state with this many pages."""
    return n_pages * self.page_bytes + n_memory_pages * self.memory_page_bytes + 4 * self.numbers


class FromXla:
  """Converts XLA's state after prompts to the state of an opened model.

  Layer by layer: the keys and values of a long text take gigabytes, and all of them at once would be in memory three
  times.
  """

  def __init__(self, description: Description, number: int):
    """`number` is the library's of the model."""
    self._description, self._number = description, number
    self._numbers = jax.jit(functools.partial(_numbers, description))

  def __call__(self, prompt: DecodeState, room: int) -> NativeState:
    """Returns the state after the prompts, with slots for `room` new tokens."""
    to, caches = self._description, prompt.layers
    length_B = prompt.filled.prompt_B.astype(jnp.int32)
    state, tables, memory_length_B = self._numbers(prompt)
    kind, batch, plan = to.types.cache, len(length_B), to.plan
    n_pages = layout.n_pages(int(np.max(length_B)) + room)
    layers = [(_put_keys, kept, kept.get(caches)) for kept in to.keys]
    layers += [(_put_records, kept, kept.get(caches)) for kept in to.records]
    for _, _, kv in layers:
      n_pages = max(n_pages, layout.n_pages(kv.capacity))
    pages = jnp.zeros((n_pages, batch, plan.page_bytes), jnp.uint8)
    for put, kept, kv in layers:
      pages = put(pages, kv, kept.at, kind)
    sources = [(kept.at, kept.get(caches)) for kept in to.memories]
    n_pages = layout.n_pages(sources[0][1].real_BxS.shape[1]) if sources else 0
    memory = jnp.zeros((n_pages, batch, plan.memory_page_bytes), jnp.uint8)
    for at, cache in sources:
      memory = _put_source(memory, cache, at, kind)
    # A step donates the state's buffers, so no two arrays may share one.
    return NativeState(
      jnp.int32(self._number),
      pages,
      state,
      tables,
      memory,
      *(jnp.copy(count_B) for count_B in (length_B, memory_length_B, prompt.position_B)),
    )


def _numbers(description: Description, prompt: DecodeState) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns `NativeState.state`, `tables` and `memory_length_B`."""
  caches, length_B, plan = prompt.layers, prompt.filled.prompt_B, description.plan
  batch = len(length_B)
  histories = [(kept.at, _history(kept.get(caches), length_B)) for kept in description.histories]
  states = [(kept.at, kept.get(caches)) for kept in description.states]
  tables = [(kept.at, _table(kept.get(caches))) for kept in description.tables]
  memory_length_B = jnp.zeros(batch, jnp.int32)
  if description.memories:
    memory_length_B = description.memories[0].get(caches).real_BxS.sum(1).astype(jnp.int32)
  return (
    _joined(histories + states, batch, plan.state_numbers, jnp.float32),
    _joined(tables, batch, plan.table_numbers, jnp.int32),
    memory_length_B,
  )


@functools.partial(jax.jit, donate_argnums=0, static_argnums=3)
def _put_keys(pages: jax.Array, kv: KVCache, at: int, kind: str) -> jax.Array:
  """Returns the pages with a layer's keys and values, at a byte of each page."""
  return _put(pages, _pages(kind, *_keys_and_values(kv, pages.shape[1])), at)


@functools.partial(jax.jit, donate_argnums=0, static_argnums=3)
def _put_records(pages: jax.Array, kv: KVCache, at: int, kind: str) -> jax.Array:
  """Returns the pages with the records of a layer whose attention hashes."""
  return _put(pages, _records(kind, *_keys_and_values(kv, pages.shape[1])), at)


@functools.partial(jax.jit, donate_argnums=0, static_argnums=3)
def _put_source(memory: jax.Array, cache: Any, at: int, kind: str) -> jax.Array:
  """Returns the memory with a layer's keys and values of the source."""
  batch, n_places = cache.real_BxS.shape
  k_BxHxSxK = cache.k_GxKxS.swapaxes(1, 2).reshape(batch, -1, n_places, cache.v_GxSxK.shape[2])
  return _put(memory, _pages(kind, k_BxHxSxK, cache.v_GxSxK.reshape(k_BxHxSxK.shape)), at)


def _put(pages: jax.Array, layer: jax.Array, at: int) -> jax.Array:
  return jax.lax.dynamic_update_slice(pages, layer, (0, 0, at))


@functools.partial(jax.jit, static_argnums=1)
def extended(state: NativeState, n_pages: int) -> NativeState:
  """Returns the state with `n_pages` more pages."""
  _, batch, size = state.pages.shape
  more = jnp.zeros((n_pages, batch, size), jnp.uint8)
  return dataclasses.replace(state, pages=jnp.concatenate([state.pages, more]))


def _joined(parts: list[tuple[int, jax.Array]], batch: int, size: int, dtype) -> jax.Array:
  """Joins (offset, array) pairs along the last axis, with zeros in the gaps up to `size`."""
  if not parts:
    return jnp.zeros((batch, size), dtype)
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


def _pages(kind: str, k_BxHxPxK: jax.Array, v_BxHxPxK: jax.Array) -> jax.Array:
  """Returns a layer's pages, uint8, Q x B x bytes: keys as packed matrices of 64 outputs, values of 64 inputs."""
  keys, values, scales = _in_pages(k_BxHxPxK), _in_pages(v_BxHxPxK), []
  if kind == 'int8':
    (keys, key_scale), (values, value_scale) = _in_8_bits(keys), _in_8_bits(values)
    scales = [_bytes(key_scale), _bytes(value_scale)]
  heads = jnp.concatenate([*scales, _packed(keys.swapaxes(-1, -2), kind), _packed(values, kind)], axis=-1)
  return heads.reshape(*heads.shape[:2], -1)


def _records(kind: str, k_BxHxPxK: jax.Array, v_BxHxPxK: jax.Array) -> jax.Array:
  """Returns a layer's pages, uint8, Q x B x bytes: for each head and position its key, its value and their scales."""
  keys, values, scales = _in_pages(k_BxHxPxK), _in_pages(v_BxHxPxK), []
  if kind == 'int8':
    (keys, key_scale), (values, value_scale) = _in_8_bits(keys), _in_8_bits(values)
    scales = [_bytes(key_scale[..., None]), _bytes(value_scale[..., None])]
  to_panels = ((0, 0),) * 4 + ((0, -keys.shape[-1] % layout.PANEL),)
  parts = [*(_bytes(jnp.pad(x, to_panels).astype(kind)) for x in (keys, values)), *scales]
  n_bytes = layout.record_bytes(kind, keys.shape[-1])
  records = jnp.concatenate(parts, axis=-1)
  records = jnp.pad(records, ((0, 0),) * 4 + ((0, n_bytes - records.shape[-1]),))
  return records.reshape(*records.shape[:2], -1)


def _in_pages(x_BxHxPxK: jax.Array) -> jax.Array:
  """Returns positions in pages, QxBxHx64xK, float32; the last page is padded with zeros."""
  batch, n_heads, n_places, width = x_BxHxPxK.shape
  padding = -n_places % layout.PAGE
  x = jnp.pad(x_BxHxPxK.astype(jnp.float32), ((0, 0), (0, 0), (0, padding), (0, 0)))
  return x.reshape(batch, n_heads, -1, layout.PAGE, width).transpose(2, 0, 1, 3, 4)


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


def _table(recent: RecentKeys) -> jax.Array:
  """Returns each bucket's count and its positions."""
  rows_BxHxRxNxS = jnp.concatenate([recent.count_BxHxRxN[..., None], recent.position_BxHxRxNxS], axis=-1)
  return rows_BxHxRxNxS.reshape(len(rows_BxHxRxNxS), -1)


def _history(before_BxCxD: jax.Array, length_B: jax.Array) -> jax.Array:
  """Returns the last C - 1 positions in a ring of C slots; position t is in slot t mod C."""
  batch, n_before, width = before_BxCxD.shape
  slot_C = jnp.arange(n_before + 1)
  at_BxC = (slot_C - (length_B[:, None] - n_before)) % (n_before + 1)
  padded_BxCxD = jnp.pad(before_BxCxD, ((0, 0), (0, 1), (0, 0)))
  return jnp.take_along_axis(padded_BxCxD, at_BxC[..., None], axis=1).reshape(batch, -1)
