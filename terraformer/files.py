"""Files that are whole at every moment, disks that do not take them, and what keeps two processes apart."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from terraformer.paths import target_of

# What a disk says that is full, beyond its quota, read-only, or has a limit to the size of a file.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_FAILURES = (*NO_ROOM, errno.EIO)


class UnwritableError(RuntimeError):
  """A disk that does not take what is written: one sentence that says where, and why.

  Attributes:
    number: of the system's error.
  """

  def __init__(self, sentence: str, number: int):
    super().__init__(sentence)
    self.number = number


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
  """Raises UnwritableError, with the file where it is known and else `path`, if the disk does not take what is written
  in the block."""
  try:
    with as_os_errors():
      yield
  except OSError as error:
    if error.errno not in _FAILURES:
      raise
    where = error.filename or path
    raise UnwritableError(f'{where} cannot be written: {os.strerror(error.errno).lower()}', error.errno) from error


@contextlib.contextmanager
def as_os_errors() -> Iterator[None]:
  """Raises the system's error where a library written in C++ has it in its text alone."""
  try:
    yield
  except (ValueError, RuntimeError) as error:
    if type(error) not in (ValueError, RuntimeError):  # one that Python code has made
      raise
    for number in _FAILURES:
      if os.strerror(number) in str(error):
        raise OSError(number, os.strerror(number)) from error
    raise


def write_whole(path: Path, data: bytes) -> None:
  """Writes a file beside `path` and gives it that name: whoever reads, or kills, finds the old one or the new one.

  A link keeps leading where it did, and a device or a pipe is written as it is.
  """
  path = target_of(path)
  if path.exists() and not path.is_file():
    path.write_bytes(data)
    return
  temporary = path.with_name(f'.{path.name}.tmp')
  try:
    temporary.write_bytes(data)
    temporary.replace(path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def lock(path: Path, refusal: Exception | None = None) -> Iterator[None]:
  """Keeps every other process that asks for the lock on this file out of the block; a killed process lets go by itself.

  Args:
    path: of the lock, an empty file that stays where it is.
    refusal: raised where another process has the lock; None to wait until that one is done.
  """
  with path.open('a') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX if refusal is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise refusal from None
    yield


def rename_to_free(path: Path, names: Iterable[str]) -> None:
  """Gives a file or a folder the first of these names that nothing beside it has."""
  others = (path.with_name(name) for name in names)
  path.rename(next(other for other in others if not other.exists()))
