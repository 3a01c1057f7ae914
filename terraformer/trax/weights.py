"""Entries of a checkpoint assigned to the parameters of a model, one by one and completely."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np

from terraformer.config import TablePositionsConfig, TerraformerConfig, UserError
from terraformer.trax.architecture import Architecture
from terraformer.trax.layout import layout
from terraformer.trax.parts import Part
from terraformer.trax.spill import SpilledArray

# Of one dimension of an entry whose size the configuration does not say.
_LARGEST_SIZE = 1 << 22


@dataclasses.dataclass(frozen=True)
class Entry:
  """One entry of the file.

  Attributes:
    part: what it is.
    array: its values, on disk.
  """

  part: Part
  array: SpilledArray

  def __str__(self) -> str:
    """Returns a row of the report: the entry, its shape, and the parameters that it became."""
    to = ' and '.join(filter(None, (self.part.to, self.part.also)))
    return f'{self.part.name} {list(self.array.shape)} -> {to or self._why_dropped}'

  @property
  def _why_dropped(self) -> str:
    return 'nothing: a copy of the first entry' if self.part.is_copy else 'nothing: the layer does not use it'


class Assignment:
  """Matches entries, as they come, with the layout of an architecture.

  Attributes:
    entries: those that came.
  """

  def __init__(self, architecture: Architecture):
    self._architecture = architecture
    self._layout = layout(architecture)
    self._wanted: Sequence[Part] = next(self._layout)
    self._is_complete = False
    self.entries: list[Entry] = []

  def expect(self, name: str, shape: tuple[int, ...]) -> None:
    """Accepts the shape of the next entry, before its data are read.

    Raises:
      UserError: if the entry is one too many, or none of those that may come next has this shape.
    """
    if self._is_complete:
      raise UserError(f'{name} is one too many: the model that config.gin describes has {len(self.entries)} entries')
    if not any(part.fits(shape) for part in self._wanted) or max(shape, default=1) > _LARGEST_SIZE:
      options = [f'{part.name} {_written(part.shape)}' for part in self._wanted]
      raise UserError(
        f'{name} has the shape {list(shape)}, but config.gin describes a model with {" or ".join(options)} here'
      )

  def add(self, array: SpilledArray, name: str) -> None:
    """Assigns the next entry; raises UserError if it should be a copy of the first entry and is not."""
    matching = [part for part in self._wanted if part.fits(array.shape)]
    if matching[0].is_copy and not np.array_equal(array.read(), self.entries[0].array.read()):
      if len(matching) == 1:
        raise UserError(f'{name} must be a copy of the embedding, which is the first entry, but its values differ')
      matching = matching[1:]
    self.entries.append(Entry(matching[0], array))
    try:
      self._wanted = self._layout.send((matching[0], array.shape))
    except StopIteration:
      self._is_complete = True

  def finish(self, name: str) -> 'Weights':
    """Returns the weights.

    Raises:
      UserError: if entries are missing; names the first.
    """
    if not self._is_complete:
      missing = self._wanted[-1]
      raise UserError(
        f'{name}: the file ends after {len(self.entries)} entries, and the next one, {missing.name} '
        f'{_written(missing.shape)}, is missing; it is truncated, or config.gin is of another model'
      )
    return Weights(_sized(self._architecture.model, self.entries), tuple(self.entries))


@dataclasses.dataclass(frozen=True)
class Weights:
  """A complete set of entries.

  Attributes:
    model: the configuration, with the sizes that the entries have.
    entries: in the file's order.
  """

  model: TerraformerConfig
  entries: tuple[Entry, ...]

  @functools.cached_property
  def parameters(self) -> dict[str, list[Entry]]:
    """The entries of each parameter, by its name in the layerwise form of the model."""
    found: dict[str, list[Entry]] = {}
    for entry in self.entries:
      for name in filter(None, (entry.part.to, entry.part.also)):
        found.setdefault(name, []).append(entry)
    return found

  def report(self) -> Iterable[str]:
    """Yields a line for each entry: what it is, and which parameter it became."""
    for number, entry in enumerate(self.entries):
      yield f'{number:5} {entry}'


def value_of(entries: Sequence[Entry], shape: tuple[int, ...]) -> np.ndarray:
  """Returns the float32 value of a parameter of this shape, made of its entries."""
  arrays = [entry.part.arranged(entry.array.read()) for entry in entries]
  return np.ascontiguousarray(entries[0].part.combine(arrays), np.float32).reshape(shape)


def _sized(model: TerraformerConfig, entries: Sequence[Entry]) -> TerraformerConfig:
  """The configuration with the vocabulary and the number of positions that the entries have."""
  max_length = model.max_length
  if isinstance(model.positions, TablePositionsConfig):
    max_length = next(entry.array.shape[-2] for entry in entries if entry.part.name.endswith('_pos/table'))
  return dataclasses.replace(model, vocab_size=entries[0].array.shape[0], max_length=max_length)


def _written(shape: tuple[int | None, ...]) -> str:
  return f'[{", ".join("any" if n is None else str(n) for n in shape)}]'
