"""Texts of the native engine: the rows of one batch, each with its own number of positions.

The batch has 1, 2, 4, ... rows, as few as its texts need. A text that joins is written into a free row, or the batch
moves to one with more rows. A text that leaves frees its row at once; when half of the rows have been free for a while,
the batch moves to one with fewer. Its pages double when the longest text needs more. So a step is one of few programs,
all of which `warm_up` compiles.

Each step is started before Python looks at the tokens of the one before. A text may therefore take one step too many,
whose token is dropped.
"""

import dataclasses
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import DecodeConfig, ModelConfig
from terraformer.decode.native.engine import NativeEngine
from terraformer.decode.prompts import Prompts
from terraformer.native import layout
from terraformer.serving import batch_state
from terraformer.serving.batch_state import BatchState, RowState
from terraformer.serving.row_sampling import RowSampling

# Steps that half of the rows must be free before the batch moves to fewer: a move copies all pages.
_STEPS_BEFORE_SHRINKING = 16


@dataclasses.dataclass(frozen=True)
class _Read:
  """The state of one text after its prompt.

  Attributes:
    pages, memory: its pages, 1 x bytes each.
    row: everything else.
    token: the token that the first step reads.
    length: number of filled positions.
    n_new: maximum number of new tokens.
  """

  pages: list[np.ndarray]
  memory: list[np.ndarray]
  row: RowState
  token: int
  length: int
  n_new: int


@dataclasses.dataclass
class _Row:
  """A text in a row of the batch; `left` steps have not been started, after which it has `length` filled positions."""

  key: Hashable
  length: int
  left: int


class Batch:
  """Texts that are rows of one batch, see `rows.Rows`."""

  def __init__(
    self,
    engine: NativeEngine,
    config: ModelConfig,
    n_ids: int,
    cache_dtype: str,
    max_concurrent: int,
    usual_lengths: tuple[int, int],
  ):
    """Makes an empty batch.

    Args:
      engine: computes the steps.
      config: the model's configuration.
      n_ids: size of the vocabulary.
      cache_dtype: type of keys and values.
      max_concurrent: maximum number of rows.
      usual_lengths: most tokens of sources and of targets, for which `warm_up` prepares.
    """
    self._engine, self._cache_dtype, self._max_rows = engine, cache_dtype, max_concurrent
    self._cross_attends, self._usual_lengths = config.cross_attends, usual_lengths
    self._sizes, self._arguments = engine.sizes(cache_dtype), engine.arguments
    self._compiled_step = batch_state.compile_step(engine.forward, n_ids)
    self.clear()

  def clear(self) -> None:
    """Removes all texts, also after an error."""
    self._rows: list[_Row | None] = [None]
    self._state = BatchState.empty(self._sizes, 1, 1, int(self._cross_attends))
    self._token_B = jnp.zeros(1, jnp.int32)
    self._pending: tuple[jax.Array, list[Hashable]] | None = None
    self._n_half_empty = 0

  def read(self, prompts: Prompts, config: DecodeConfig) -> _Read:
    """Reads the prompt of one text."""
    state = self._engine.prefill(prompts, 1, self._cache_dtype)
    row = RowState(
      numbers=state.state[0],
      length=state.length_B[0],
      memory_length=state.memory_length_B[0],
      position=state.position_B[0],
      index=jnp.int32(0),
      is_used=jnp.bool_(True),
      sampling=RowSampling.from_config(config),
    )
    pages, memory = np.asarray(state.pages), np.asarray(state.memory)
    length, memory_length = int(row.length), int(row.memory_length)
    return _Read(
      [pages[number] for number in range(layout.n_pages(length))],
      [memory[number] for number in range(layout.n_pages(memory_length))],
      row,
      int(prompts.last_B[0]),
      length,
      prompts.n_new,
    )

  def join(self, key: Hashable, read: _Read) -> None:
    """Adds a text whose prompt was read."""
    n_pages, n_memory_pages = _power_of_two(layout.n_pages(read.length + 1)), _power_of_two(len(read.memory))
    self._grow(n_pages, n_memory_pages)
    if None not in self._rows:
      self._move(self._buckets()[self._buckets().index(len(self._rows)) + 1])
    at = self._rows.index(None)
    self._rows[at] = _Row(key, read.length, read.n_new)
    state = batch_state.insert(self._state, read.row, at)
    pages, memory = state.pages, state.memory
    for number, page in enumerate(read.pages):
      pages = batch_state.insert_page(pages, page, number, at)
    for number, page in enumerate(read.memory):
      memory = batch_state.insert_page(memory, page, number, at)
    self._state = dataclasses.replace(state, pages=pages, memory=memory)
    self._token_B = self._token_B.at[at].set(read.token)

  def leave(self, key: Hashable) -> None:
    """Removes a text, if it is there."""
    at = next((at for at, row in enumerate(self._rows) if row is not None and row.key == key), None)
    if at is None:
      return
    self._rows[at] = None
    if any(self._rows):
      self._state = batch_state.remove(self._state, at)
    else:
      self.clear()

  def step(self) -> list[tuple[Any, int]]:
    """Starts a step, and returns the tokens of the one before; none in the first step of the batch."""
    before, self._pending = self._pending, self._start_step()
    if before is None:
      return []
    token_B, keys = before
    return [(key, token) for key, token in zip(keys, np.asarray(token_B).tolist(), strict=True) if key is not None]

  def bytes_of(self, prompts: Sequence[Prompts]) -> int:
    """Returns the bytes of a batch of these texts, each at its full length."""
    if not prompts:
      return 0
    n_rows = next(size for size in self._buckets() if size >= len(prompts))
    lengths = [int(one.length_B[0]) for one in prompts]
    n_new = [one.n_new + 1 for one in prompts]  # a text may take one step too many
    sources, slots = (lengths, n_new) if self._cross_attends else ([0], map(sum, zip(lengths, n_new, strict=True)))
    n_pages, n_memory_pages = (_power_of_two(layout.n_pages(max(sizes))) for sizes in (slots, sources))
    return n_rows * self._sizes.n_bytes(n_pages, n_memory_pages)

  def warm_up(self) -> None:
    """Compiles the programs for every number of rows, and for pages up to the lengths in training."""
    for n_pages, n_memory_pages in self._page_counts():
      for size in self._buckets():
        state = BatchState.empty(self._sizes, size, n_pages, n_memory_pages)
        token_B = jnp.zeros(size, jnp.int32)
        token_B, state = self._compiled_step(self._arguments, state, token_B)
        for other in self._neighbors(size):
          batch_state.moved(state, token_B, jnp.full(other, -1))
        batch_state.with_pages(state, 2 * n_pages, n_memory_pages)
        row = jax.tree.map(lambda x_B: x_B[0], state.rows)
        state = batch_state.remove(batch_state.insert(state, row, 0), 0)
        token_B = token_B.at[0].set(0)
        batch_state.insert_page(state.pages, np.zeros((1, self._sizes.page_bytes), np.uint8), 0, 0)

  def _start_step(self) -> tuple[jax.Array, list[Hashable]] | None:
    """Starts a step unless no text needs one; returns its tokens, not computed yet, and the text of each row."""
    rows = [row for row in self._rows if row is not None]
    if not any(row.left for row in rows):
      return None
    self._shrink(len(rows))
    self._grow(_power_of_two(layout.n_pages(max(row.length for row in rows) + 1)), 0)
    self._token_B, self._state = self._compiled_step(self._arguments, self._state, self._token_B)
    keys = [row.key if row is not None and row.left else None for row in self._rows]
    for row in rows:
      row.left, row.length = max(0, row.left - 1), row.length + 1
    return self._token_B, keys

  def _grow(self, n_pages: int, n_memory_pages: int) -> None:
    """Doubles the pages until there are enough."""
    while len(self._state.pages) < n_pages:
      self._state = batch_state.with_pages(self._state, 2 * len(self._state.pages), len(self._state.memory))
    while len(self._state.memory) < n_memory_pages:
      self._state = batch_state.with_pages(self._state, len(self._state.pages), 2 * len(self._state.memory))

  def _shrink(self, n_texts: int) -> None:
    """Moves to fewer rows if half of them have been free for a while."""
    smaller = [size for size in self._buckets() if n_texts <= size < len(self._rows)]
    self._n_half_empty = self._n_half_empty + 1 if smaller else 0
    if self._n_half_empty > _STEPS_BEFORE_SHRINKING:
      self._move(smaller[-1])
      self._n_half_empty = 0

  def _move(self, n_rows: int) -> None:
    """Moves to a batch with this many rows."""
    taken = [at for at, row in enumerate(self._rows) if row is not None]
    from_W = np.array([*taken, *[-1] * (n_rows - len(taken))])
    self._state, self._token_B = batch_state.moved(self._state, self._token_B, from_W)
    self._rows = [None if at < 0 else self._rows[at] for at in from_W]

  def _buckets(self) -> list[int]:
    """Returns the numbers of rows that a batch can have."""
    powers = [1 << n for n in range(self._max_rows.bit_length())]
    return sorted({*powers, self._max_rows})

  def _neighbors(self, size: int) -> list[int]:
    """Returns the numbers of rows to which a batch of this size can move."""
    at, buckets = self._buckets().index(size), self._buckets()
    return buckets[max(0, at - 1) : at] + buckets[at + 1 : at + 2]

  def _page_counts(self) -> Iterator[tuple[int, int]]:
    """Yields numbers of pages, and of the source's, of texts up to the usual lengths."""
    sources, targets = self._usual_lengths
    slots = targets if self._cross_attends else sources + targets
    most = (
      _power_of_two(layout.n_pages(slots + 1)),
      _power_of_two(layout.n_pages(sources if self._cross_attends else 0)),
    )
    for n_memory_pages in [1 << n for n in range(most[1].bit_length())] or [0]:
      for power in range(most[0].bit_length()):
        yield 1 << power, n_memory_pages


def _power_of_two(n: int) -> int:
  """Returns the smallest power of two that is not smaller than `n`; 0 for 0."""
  return 1 << (n - 1).bit_length() if n else 0
