"""Packing: chooses which short examples share a record, and turns a record into a batch row.

F features, O open packs.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from terraformer.data.objectives import pad

# Open packs: with more, packs are hardly fuller, and the search takes longer.
_OPEN = 64

Example = dict[str, np.ndarray]


def first_fit(examples: Iterable[Example], room: Mapping[str, int], max_segments: int = 0) -> Iterator[list[Example]]:
  """Puts each example into the first open pack with room for all its features; if there is none, closes the fullest.

  Args:
    examples: ids by feature, none longer than a whole pack.
    room: tokens per pack, by feature.
    max_segments: the most examples in a pack; 0 for as many as fit.

  Yields:
    Packs as they are closed, with their examples in input order; the result is deterministic.
  """
  room_F = np.array(list(room.values()))
  free_OxF = np.tile(room_F, (_OPEN, 1))
  packs: list[list[Example]] = [[] for _ in range(_OPEN)]

  def end(at: int) -> list[Example]:
    ended, packs[at] = packs[at], []
    free_OxF[at] = room_F
    return ended

  for example in examples:
    length_F = np.array([len(example[name]) for name in room])
    fits_O = (free_OxF >= length_F).all(1)
    at = int(fits_O.argmax())
    if not fits_O[at]:
      at = int((free_OxF / room_F).sum(1).argmin())
      yield end(at)
    packs[at].append(example)
    free_OxF[at] -= length_F
    if len(packs[at]) == max_segments:
      yield end(at)
  yield from (pack for pack in packs if pack)


def joined(pack: list[Example]) -> Example:
  """Returns the tokens of a record: for each feature, the concatenated examples and their lengths (`lengths_name`)."""
  record = {}
  for feature in pack[0]:
    record[feature] = np.concatenate([example[feature] for example in pack])
    record[lengths_name(feature)] = np.array([len(example[feature]) for example in pack])
  return record


def lengths_name(feature: str) -> str:
  return f'{feature}_lengths'


def n_examples(record: Mapping[str, Any]) -> int:
  """Returns the number of examples in a packed record, or 0 for any other record."""
  return len(record.get(lengths_name('targets'), ()))


def rows(record: Mapping[str, Any], room: Mapping[str, int]) -> Example:
  """Returns the batch row of a record: for each feature, the tokens and the example number of each token.

  Both are padded with zeros to `room`, so examples count from 1. A feature that the record lacks is all padding.
  """
  nothing = np.zeros(0, np.int32)
  row = {}
  for feature, length in room.items():
    lengths = record.get(lengths_name(feature), nothing)
    row[feature] = pad(record.get(feature, nothing), length)
    row[f'{feature}_segments'] = pad(np.repeat(np.arange(1, 1 + len(lengths)), lengths), length)
  return row
