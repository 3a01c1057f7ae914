"""Writes files atomically, reports full disks, and locks files against other processes."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from terraformer.paths import target_of

# Errors of a disk that is full, over quota, read-only, or limits the size of files.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_FAILURES = (*NO_ROOM, errno.EIO)


class UnwritableError(RuntimeError):
  """The disk does not accept a file; the message is one sentence that says where and why.

  Attributes:
    number: number of the system's error.
  """

  def __init__(self, sentence: str, number: int):
    super().__init__(sentence)
    self.number = number


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
  """Raises UnwritableError if the disk does not accept a file that the block writes; names the file, or `path` if the
  system does not name it."""
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
  """Raises the system's error if a C++ library raises an error that only mentions it in its message."""
  try:
    yield
  except (ValueError, RuntimeError) as error:
    if type(error) not in (ValueError, RuntimeError):  # Python code raises a subclass
      raise
    for number in _FAILURES:
      if os.strerror(number) in str(error):
        raise OSError(number, os.strerror(number)) from error
    raise


def write_whole(path: Path, data: bytes) -> None:
  """Replaces a file atomically: at any time, `path` is the complete old file or the complete new one.

  A link keeps its target, which is replaced; a device or a pipe is written directly.
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
  """Holds a lock on a file during the block; the system releases the lock of a killed process.

  Args:
    path: path of the lock, an empty file that is not removed.
    refusal: error to raise if another process holds the lock; None to wait for that process.
  """
  with path.open('a') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX if refusal is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise refusal from None
    yield


def rename_to_free(path: Path, names: Iterable[str]) -> None:
  """Renames a file or folder to the first of these names that is not taken in its folder."""
  others = (path.with_name(name) for name in names)
  path.rename(next(other for other in others if not other.exists()))
