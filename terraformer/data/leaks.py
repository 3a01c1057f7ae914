"""Keeps held-out data apart from training data: rejects shared files and counts shared texts."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence

from terraformer.config import UserError
from terraformer.data.store import RECORD


def require_apart(files: Mapping[str, Sequence[os.PathLike]], where: str) -> None:
  """Rejects a file of `train` that another split also reads, even under another name or through a link.

  Args:
    files: the files of each split.
    where: where they are named; it begins the message.

  Raises:
    UserError: if two splits share a file.
  """
  trained = {known: path for path in files.get('train', ()) if (known := _identity(path))}
  for split, paths in files.items():
    for path in paths if split != 'train' else ():
      if (same := trained.get(_identity(path))) is not None:
        as_named = '' if str(same) == str(path) else f', named {same} in train'
        raise UserError(f'{where}: {split} and train share the file {path}{as_named}; remove it from one of them')


def _identity(path: os.PathLike) -> tuple[int, int] | None:
  """Returns an identity that is equal for all names of a local file; None for a file that is not on this machine."""
  try:
    status = os.stat(path)  # noqa: PTH116
  except OSError:
    return None
  return status.st_dev, status.st_ino


def key(texts: Mapping[str, str]) -> bytes:
  """Returns a key that is equal for two examples with the same text in each feature, wherever they are."""
  values = {name: text for name, text in texts.items() if name != RECORD}
  return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).digest()[:16]


def keys(examples: Iterable[Mapping[str, str]]) -> frozenset[bytes]:
  """Returns the keys of held-out examples."""
  return frozenset(map(key, examples))
