"""The state of a batch whose rows hold texts of different ages, and the compiled functions that change it.

Each function is compiled for a number of rows and of pages. Both are powers of two (the most rows need not be), so that
there are few programs. All but the new rows of `insert` are donated, so that pages are changed in place.

B rows, Q pages of 64 slots, T = 64 Q slots for generated tokens.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from terraformer.decode.native.state import NativeState, StateSizes, extended
from terraformer.decode.step import COMPILER_OPTIONS, Forward
from terraformer.models.generate import mask_reserved_ids
from terraformer.native import layout
from terraformer.serving.row_sampling import RowSampling

_COUNTS = ('length', 'memory_length', 'position', 'index')  # fields of `RowState` that are 0 without a text


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RowState:
  """What a row holds besides its pages; in a batch, arrays with a leading axis B.

  Attributes:
    numbers: histories and recurrences, see `NativeState.state`.
    length, memory_length, position: counts of positions, see `NativeState`.
    index: number of tokens that the text generated so far, int32.
    is_used: whether the row holds a text.
    sampling: how tokens are chosen.
  """

  numbers: jax.Array
  length: jax.Array
  memory_length: jax.Array
  position: jax.Array
  index: jax.Array
  is_used: jax.Array
  sampling: RowSampling


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BatchState:
  """The state of all rows between two steps.

  Attributes:
    number: the library's number of the model.
    pages, memory: keys and values, uint8, Q x B x bytes, see `NativeState`.
    rows: everything else.
    generated_BxT: tokens that each text generated so far, followed by anything.
  """

  number: jax.Array
  pages: jax.Array
  memory: jax.Array
  rows: RowState
  generated_BxT: jax.Array

  @property
  def n_rows(self) -> int:
    """Number of rows, B."""
    return len(self.rows.length)

  @classmethod
  def empty(cls, sizes: StateSizes, n_rows: int, n_pages: int, n_memory_pages: int) -> 'BatchState':
    """Returns a state without texts."""

    def zeros(shape=(), dtype=jnp.int32):
      return jnp.zeros((n_rows, *shape), dtype)  # each an array of its own, since they are donated

    counts = {name: zeros() for name in _COUNTS}
    numbers, is_used = zeros((sizes.numbers,), jnp.float32), zeros(dtype=bool)
    rows = RowState(numbers=numbers, is_used=is_used, sampling=RowSampling.greedy(n_rows), **counts)
    return cls(
      jnp.int32(sizes.number),
      jnp.zeros((n_pages, n_rows, sizes.page_bytes), jnp.uint8),
      jnp.zeros((n_memory_pages, n_rows, sizes.memory_page_bytes), jnp.uint8),
      rows,
      zeros((n_pages * layout.PAGE,)),
    )

  def for_engine(self) -> NativeState:
    """Returns what the engine's step reads."""
    rows, no_tables = self.rows, jnp.zeros((self.n_rows, 0), jnp.int32)  # of attention that hashes
    return NativeState(
      self.number, self.pages, rows.numbers, no_tables, self.memory, rows.length, rows.memory_length, rows.position
    )


Step = Callable[[Any, BatchState, jax.Array], tuple[jax.Array, BatchState]]


@functools.lru_cache(maxsize=16)
def compile_step(forward: Forward, n_ids: int) -> Step:
  """Returns step(arguments, batch, token_B) -> (next_B, batch), see `decode.step.compile_step`."""

  @functools.partial(jax.jit, donate_argnames='batch', compiler_options=COMPILER_OPTIONS)
  def step(arguments, batch, token_B):
    logits_BxV, after = forward(arguments, token_B, batch.for_engine())
    rows, row_B = batch.rows, jnp.arange(len(token_B))
    logits_BxV = mask_reserved_ids(logits_BxV, n_ids)
    next_B = rows.sampling.next_token(logits_BxV, rows.index, batch.generated_BxT)
    generated_BxT = batch.generated_BxT.at[row_B, rows.index].set(next_B, mode='drop')

    def of_texts(count_B):
      return jnp.where(rows.is_used, count_B, 0)  # a row without a text stays short

    rows = dataclasses.replace(
      rows,
      numbers=after.state,
      length=of_texts(after.length_B),
      position=of_texts(after.position_B),
      index=of_texts(rows.index + 1),
    )
    return next_B, BatchState(after.number, after.pages, after.memory, rows, generated_BxT)

  return step


@functools.partial(jax.jit, donate_argnums=0)
def insert(batch: BatchState, row: RowState, at: int) -> BatchState:
  """Returns the batch with a text in row `at`, without its pages."""
  rows = jax.tree.map(lambda x_B, x: x_B.at[at].set(x), batch.rows, row)
  return dataclasses.replace(batch, rows=rows)


@functools.partial(jax.jit, donate_argnums=0)
def insert_page(pages: jax.Array, page: ArrayLike, number: int, at: int) -> jax.Array:
  """Returns the pages QxBx... with one page 1x... of row `at` replaced."""
  return jax.lax.dynamic_update_slice(pages, jnp.asarray(page)[None], (number, at, 0))


@functools.partial(jax.jit, donate_argnums=0)
def remove(batch: BatchState, at: int) -> BatchState:
  """Returns the batch with row `at` unused."""
  rows = batch.rows
  unused = jax.tree.map(lambda x: x[0], RowSampling.greedy(1))
  sampling = jax.tree.map(lambda x_B, x: x_B.at[at].set(x), rows.sampling, unused)
  counts = {name: getattr(rows, name).at[at].set(0) for name in _COUNTS}
  rows = dataclasses.replace(rows, sampling=sampling, is_used=rows.is_used.at[at].set(False), **counts)
  return dataclasses.replace(batch, rows=rows)


@jax.jit
def moved(batch: BatchState, token_B: jax.Array, from_W: ArrayLike) -> tuple[BatchState, jax.Array]:
  """Returns a batch of W rows and its last tokens; each row holds the text of row `from_W`, or none if that is -1."""
  from_W = jnp.asarray(from_W)
  row_W = jnp.maximum(from_W, 0)
  rows = jax.tree.map(lambda x_B: x_B[row_W], batch.rows)
  is_text_W = from_W >= 0
  counts = {name: jnp.where(is_text_W, getattr(rows, name), 0) for name in _COUNTS}
  greedy = RowSampling.greedy(len(from_W))
  sampling = jax.tree.map(lambda x_W, none_W: jnp.where(is_text_W, x_W, none_W), rows.sampling, greedy)
  rows = dataclasses.replace(rows, sampling=sampling, is_used=is_text_W, **counts)
  pages, memory = (jnp.take(x, row_W, axis=1) for x in (batch.pages, batch.memory))
  return BatchState(batch.number, pages, memory, rows, batch.generated_BxT[row_W]), token_B[row_W]


@functools.partial(jax.jit, static_argnums=(1, 2))
def with_pages(batch: BatchState, n_pages: int, n_memory_pages: int) -> BatchState:
  """Returns the batch with this many pages, at least as many as before."""
  more = n_pages - len(batch.pages)
  generated_BxT = jnp.pad(batch.generated_BxT, ((0, 0), (0, more * layout.PAGE)))
  pages = extended(batch.for_engine(), more).pages
  memory = jnp.pad(batch.memory, ((0, n_memory_pages - len(batch.memory)), (0, 0), (0, 0)))
  return dataclasses.replace(batch, pages=pages, memory=memory, generated_BxT=generated_BxT)
