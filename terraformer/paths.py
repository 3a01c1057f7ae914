"""Paths as users name them, with whatever the system allows in a name, and libraries that allow less."""

import atexit
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from terraformer.config import UserError, base, refused

# Letters and digits of any script, and marks that mean nothing to a library. Among the others are those of patterns
# (orbax) and of URLs (TensorStore), and bytes that are not UTF-8 (all that is written in C++).
_PLAIN = re.compile(r'[\w ./+=,-]*')
# At the top of the file system, etils takes these for something else.
_BUCKETS = [(1, name) for name in ('gs', 's3', 'az', 'hf')]


def plain(path: Path) -> Path:
  """The same file or folder under a name that every library can be given.

  That is the path itself, or one that begins with a link to the last folder whose name is not plain, which is there.
  This process removes the link when it ends.

  Args:
    path: of this machine; what it leads to need not exist.
  """
  path = Path(path).absolute()
  # TensorStore takes no `..`; behind a link it is the folder above what the link leads to.
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
  atexit.register(shutil.rmtree, links, ignore_errors=True)
  (links / 'folder').symlink_to(target, target_is_directory=True)
  return links / 'folder'


def cache_folder() -> Path:
  """Where what can be made again is kept: `TERRAFORMER_CACHE`, or a folder of the user's."""
  return Path(os.environ.get('TERRAFORMER_CACHE') or Path.home() / '.cache' / 'terraformer')


def target_of(path: Path) -> Path:
  """Where a link leads, or a chain of links, whether anything is there or not; any other path as it is."""
  return Path(os.path.realpath(path)) if path.is_symlink() else path


def make_folder(path: Path) -> None:
  """Makes a folder and those above it where they are missing, also behind links that lead to nothing yet."""
  Path(os.path.realpath(path)).mkdir(parents=True, exist_ok=True)


def printable(path: str | os.PathLike) -> str:
  """The path as `config.base.printable` has it."""
  return base.printable(os.fspath(path))


def require_given(flags: Mapping[str, str | list[str] | None]) -> None:
  """Raises UserError for a flag with an empty path, which would be the working folder."""
  for name, given in flags.items():
    if given == '' or (isinstance(given, list) and '' in given):
      raise UserError(f'--{name}: expected a path, found an empty one, which a shell variable that is not set gives')


def require_folder(path: Path) -> None:
  """Makes a folder if need be; raises UserError for an address, and for one that cannot be made or written."""
  if re.match(r'\w+:/', str(path)):
    raise UserError(f'{path}: expected a folder, found an address; mount the bucket, as docs/tpu_pods.md shows')
  try:
    make_folder(path)
  except OSError as error:
    raise refused(path, 'write to', error) from error
  if not os.access(path, os.W_OK):
    raise UserError(f'{path}: expected a folder that can be written, found it read-only')
