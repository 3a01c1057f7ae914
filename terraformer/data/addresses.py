"""Folders that may be at an address such as `gs://bucket/data`: they are read in place and written by copying.

etils.epath accesses a bucket through TensorFlow if it is installed, otherwise through fsspec (`gs://` needs the package
gcsfs).
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from terraformer.config import UserError, first_line
from terraformer.paths import cache_folder


def is_address(address: str | os.PathLike) -> bool:
  """Whether this is an address rather than a local path."""
  return '://' in os.fspath(address)


def path_of(address: str | os.PathLike) -> Path:
  """Returns a local path, or an epath for an address."""
  if not is_address(address):
    return Path(address)
  from etils import epath  # not above: decoding starts sooner without it

  return epath.Path(address)


def normalized(address: str) -> str:
  """Returns `a/b` for `./a//b`; an empty address stays empty."""
  return str(path_of(address)) if address else ''


def size_of(path: Path) -> int:
  """Returns the size of a file in bytes."""
  found = path.stat()
  return found.length if is_address(path) else found.st_size


@contextlib.contextmanager
def reaching(address: str | os.PathLike) -> Iterator[None]:
  """Turns any error in accessing an address into a UserError that names it; errors of local paths pass unchanged."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # from any library: no network, no credentials, no such bucket, no package
    if not is_address(address):
      raise
    found = first_line(error)
    raise UserError(f'{os.fspath(address)}: expected an address that can be reached, found {found:.300}') from error


def staging_folder(address: str) -> Path:
  """Returns a local folder that holds the files for an address until they are complete."""
  return cache_folder() / 'staging' / hashlib.sha256(os.fsencode(address)).hexdigest()[:16]


def copy_folder(source: Path, target: Path, last: str) -> None:
  """Copies the files of a folder, the one named `last` after all others; skips files that were already copied."""
  from etils import epath

  target.mkdir(parents=True, exist_ok=True)
  for path in sorted(source.iterdir(), key=lambda path: (path.name == last, path.name)):
    there = target / path.name
    if path.name == last or not there.exists() or size_of(there) != path.stat().st_size:
      epath.Path(path).copy(there, overwrite=True)
