"""Folders that may lie at an address, such as `gs://bucket/data`: they are read in place, and written by copying.

A bucket is reached by etils.epath, through TensorFlow where that is installed, else through fsspec (for `gs://` the
package gcsfs).
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from terraformer.config import UserError, first_line
from terraformer.paths import cache_folder


def is_address(address: str | os.PathLike) -> bool:
  """Whether it is an address and not a path of this machine."""
  return '://' in os.fspath(address)


def path_of(address: str | os.PathLike) -> Path:
  """A path of this machine, or what behaves like one."""
  if not is_address(address):
    return Path(address)
  from etils import epath  # not above: decoding starts sooner without it

  return epath.Path(address)


def normalised(address: str) -> str:
  """`a/b` for `./a//b`; an empty one stays empty."""
  return str(path_of(address)) if address else ''


def size_of(path: Path) -> int:
  """Bytes of a file."""
  found = path.stat()
  return found.length if is_address(path) else found.st_size


@contextlib.contextmanager
def reaching(address: str | os.PathLike) -> Iterator[None]:
  """Turns whatever goes wrong on the way to an address into a UserError that names it; of a path nothing is changed."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # of whichever library: no network, no credentials, no such bucket, no package
    if not is_address(address):
      raise
    found = first_line(error)
    raise UserError(f'{os.fspath(address)}: expected an address that can be reached, found {found:.300}') from error


def staging_folder(address: str) -> Path:
  """A folder of this machine that stands for an address until what is written there is whole."""
  return cache_folder() / 'staging' / hashlib.sha256(os.fsencode(address)).hexdigest()[:16]


def copy_folder(source: Path, target: Path, last: str) -> None:
  """Copies the files of a folder, the one named `last` after all others; what is there in full is left alone."""
  from etils import epath

  target.mkdir(parents=True, exist_ok=True)
  for path in sorted(source.iterdir(), key=lambda path: (path.name == last, path.name)):
    there = target / path.name
    if path.name == last or not there.exists() or size_of(there) != path.stat().st_size:
      epath.Path(path).copy(there, overwrite=True)
