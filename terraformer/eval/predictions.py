"""Stores the texts of an evaluation while it decodes, so that it can resume after an interruption.

`evaluation_SPLIT.jsonl` has one line per example (source, reference, prediction), always in the same order.
`evaluation_SPLIT.json` describes their origin: the checkpoint, the data, and the decoding settings.
"""

import contextlib
import io
import itertools
import json
import os
from pathlib import Path
from typing import Any

from terraformer.config import UserError, from_dict, refused, to_dict
from terraformer.files import lock, rename_to_free, write_whole

FIELDS = ('source', 'reference', 'prediction')


class Predictions:
  """The stored predictions for a split, to which new ones are added."""

  def __init__(self, workdir: Path, split: str, origin: dict[str, Any]):
    """Opens the files; renames existing predictions of another origin.

    Args:
      workdir: the run's folder.
      split: split of the data.
      origin: JSON values that are equal for two evaluations if and only if their predictions are; includes `step`.

    Raises:
      UserError: if the files cannot be read or written, or another evaluation of the split is running.
    """
    self.path = Path(workdir) / f'evaluation_{split}.jsonl'
    about = self.path.with_suffix('.json')
    try:
      self._lock = contextlib.ExitStack()
      self._lock.enter_context(lock(self.path.with_suffix('.lock'), _taken(self.path)))
      kept = _read_json(about)
      if _present_form(kept) != origin and self.path.is_file():
        step = kept.get('step') if isinstance(kept, dict) else None
        mark = f'step{step}' if isinstance(step, int) else 'other'
        name = f'{self.path.stem}.{mark}'
        rename_to_free(self.path, (f'{name}.{n}.jsonl' if n else f'{name}.jsonl' for n in itertools.count()))
      self._rows = _whole_rows(self.path)
      write_whole(about, (json.dumps(origin, indent=1) + '\n').encode())
      self._file = self.path.open('a', encoding='utf-8')
    except OSError as error:
      raise refused(self.path, 'read and write', error) from error

  @property
  def texts(self) -> list[str]:
    """The model's texts, in the order of the examples."""
    return [row['prediction'] for row in self._rows]

  def require(self, pairs: list[tuple[str, str]]) -> None:
    """Raises UserError unless the stored rows have these sources and references, in this order."""
    for number, (row, pair) in enumerate(zip(self._rows, pairs, strict=False), 1):
      if (row['source'], row['reference']) != pair:
        raise UserError(
          f'{self.path}, line {number}: this is not example {number} of the split; remove the file to decode again'
        )

  def add(self, pairs: list[tuple[str, str]], written: list[str]) -> None:
    """Stores the texts of the next examples; they are on the disk when this returns."""
    rows = [dict(zip(FIELDS, (*pair, text), strict=True)) for pair, text in zip(pairs, written, strict=True)]
    try:
      self._file.write(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows))
      self._file.flush()
      os.fsync(self._file.fileno())
    except OSError as error:
      raise refused(self.path, 'write', error) from error
    self._rows += rows

  def close(self) -> None:
    """Closes the file and releases the lock."""
    self._file.close()
    self._lock.close()


def _present_form(origin: Any) -> Any:
  """Returns a stored origin with its decoding settings as this version stores them, if it can read them."""
  with contextlib.suppress(UserError, KeyError, TypeError):
    return origin | {'decode': to_dict(from_dict(origin['decode']))}
  return origin


def _taken(path: Path) -> UserError:
  return UserError(f'{path}: another evaluation of this split is running; wait for it, or stop it')


def _whole_rows(path: Path) -> list[dict[str, str]]:
  """Returns the rows before the first incomplete one, and removes everything after them from the file."""
  rows, end = [], 0
  data = path.read_bytes() if path.exists() else b''
  for line in io.BytesIO(data):  # ends lines only at newlines
    try:
      row = json.loads(line)
    except (ValueError, RecursionError):
      break
    if not line.endswith(b'\n') or not _is_row(row):
      break
    rows.append(row)
    end += len(line)
  if end < len(data):
    write_whole(path, data[:end])
  return rows


def _is_row(row: Any) -> bool:
  return isinstance(row, dict) and row.keys() == set(FIELDS) and all(isinstance(text, str) for text in row.values())


def _read_json(path: Path) -> Any:
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError, RecursionError):
    return None
