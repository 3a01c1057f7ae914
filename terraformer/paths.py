"""Handles paths: users may use any name that the system allows, but libraries allow fewer."""

import atexit
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from terraformer.config import UserError, base, refused

# Letters and digits of any script, and characters without a special meaning to any library. Libraries interpret others
# as patterns (orbax) or URLs (TensorStore), and C++ code does not accept bytes that are not UTF-8.
_PLAIN = re.compile(r'[\w ./+=,-]*')
# etils interprets these names at the top of the file system as buckets.
_BUCKETS = [(1, name) for name in ('gs', 's3', 'az', 'hf')]


def plain(path: Path) -> Path:
  """Returns a path to the same file or folder that every library accepts.

  It is the path itself, or a path that starts with a link to the last folder whose name is not plain; that folder must
  exist. This process removes the link when it ends.

  Args:
    path: a path on this machine; the file or folder need not exist.
  """
  path = Path(path).absolute()
  # TensorStore does not accept `..`; after a link, `..` is the parent of the link's target.
  names = (path.resolve() if '..' in path.parts else path).parts
  is_plain = [bool(_PLAIN.fullmatch(name)) and (at, name) not in _BUCKETS for at, name in enumerate(names)]
  if all(is_plain):
    return Path(*names)
  first = len(names) - is_plain[::-1].index(False)
  return _link(os.path.join(*names[:first])).joinpath(*names[first:])  # noqa: PTH118


@functools.cache
def _link(target: str) -> Path:
  parent = tempfile.gettempdir()
  links = Path(tempfile.mkdtemp(prefix='terraformer-', dir=parent if _PLAIN.fullmatch(parent) else '/tmp'))
  if not _folders():
    atexit.register(remove_links)
  _folders().append(links)
  (links / 'folder').symlink_to(target, target_is_directory=True)
  return links / 'folder'


@functools.cache
def _folders() -> list[Path]:
  """The temporary folders of this process's links."""
  return []


def remove_links() -> None:
  """Removes the links of this process; only one that ends without Python's exit functions needs to call it."""
  for folder in _folders():
    shutil.rmtree(folder, ignore_errors=True)


def cache_folder() -> Path:
  """Returns the folder for files that can be created again: `TERRAFORMER_CACHE`, or one in the user's home."""
  return Path(os.environ.get('TERRAFORMER_CACHE') or Path.home() / '.cache' / 'terraformer')


def target_of(path: Path) -> Path:
  """Returns the target of a link or a chain of links, which need not exist; other paths are returned unchanged."""
  return Path(os.path.realpath(path)) if path.is_symlink() else path


def make_folder(path: Path) -> None:
  """Creates a folder and its parents if they are missing, also as the target of a dangling link."""
  Path(os.path.realpath(path)).mkdir(parents=True, exist_ok=True)


def printable(path: str | os.PathLike) -> str:
  """Returns the path as printable text, see `config.base.printable`."""
  return base.printable(os.fspath(path))


def require_given(flags: Mapping[str, str | list[str] | None]) -> None:
  """Raises UserError if a flag has an empty path, which would mean the working folder."""
  for name, given in flags.items():
    if given == '' or (isinstance(given, list) and '' in given):
      raise UserError(f'--{name}: the path is empty; check that the shell variable in it is set')


def require_folder(path: Path) -> None:
  """Creates a folder if it is missing; raises UserError for an address, or if it cannot be created or written."""
  if re.match(r'\w+:/', str(path)):
    raise UserError(f'{path} is an address, not a folder; mount the bucket, as docs/tpu_pods.md shows')
  if path.is_file():
    raise UserError(f'{path} is a file; --workdir must be a folder')
  try:
    make_folder(path)
  except OSError as error:
    raise refused(path, 'write to', error) from error
  if not os.access(path, os.W_OK):
    raise UserError(f'cannot write to {path}: the folder is read-only')
