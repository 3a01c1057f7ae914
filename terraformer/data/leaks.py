"""Keeps what is held out apart from what is trained on: the same file is refused, the same text is counted."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence

from terraformer.config import UserError
from terraformer.data.store import RECORD


def require_apart(files: Mapping[str, Sequence[os.PathLike]], where: str) -> None:
  """Refuses a file of `train` that another split reads as well, under whatever name, by links too.

  Args:
    files: of each split.
    where: they are named, which begins the sentence.

  Raises:
    UserError: if there is such a file.
  """
  trained = {known: path for path in files.get('train', ()) if (known := _identity(path))}
  for split, paths in files.items():
    for path in paths if split != 'train' else ():
      if (same := trained.get(_identity(path))) is not None:
        as_named = '' if str(same) == str(path) else f', there named {same}'
        raise UserError(
          f'{where}: expected files of {split} that training does not read, found {path} in train as well{as_named}; '
          'take it out of one of them'
        )


def _identity(path: os.PathLike) -> tuple[int, int] | None:
  """By what two names of a file are told to be of the same; None of one that is not on this machine."""
  try:
    status = os.stat(path)  # noqa: PTH116
  except OSError:
    return None
  return status.st_dev, status.st_ino


def key(texts: Mapping[str, str]) -> bytes:
  """Equal for two examples with the same text in each feature, wherever they stand."""
  values = {name: text for name, text in texts.items() if name != RECORD}
  return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).digest()[:16]


def keys(examples: Iterable[Mapping[str, str]]) -> frozenset[bytes]:
  """The keys of examples that are held out."""
  return frozenset(map(key, examples))
