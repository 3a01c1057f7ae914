"""Bytes of a checkpoint's file, decompressed as they are read and limited in number."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from terraformer.config import UserError, unreadable

_GZIP = b'\x1f\x8b'
_PIECE = 1 << 20  # bytes that are in memory at one time while many are copied
# Weights hardly compress, and texts of a pickle by less than 20. Gzip can reach 1000, which only a bomb does.
_MOST_RATIO = 100
_SMALL = 1 << 26  # bytes that any file may decompress to


class Source:
  """A file, compressed by gzip or not, that is read once from front to back.

  Attributes:
    name: of the file, for messages.
  """

  def __init__(self, path: Path, file: IO[bytes], report: Callable[[int], object]):
    self.name = str(path)
    self._raw, self._report = file, report
    is_compressed = file.read(2) == _GZIP
    file.seek(0)
    self._file = gzip.GzipFile(fileobj=file) if is_compressed else file
    self._most = _SMALL + _MOST_RATIO * path.stat().st_size
    self._n_read = self._n_reported = 0

  def read(self, n: int) -> bytes:
    """Returns the next `n` bytes; this is also what numpy calls.

    Raises:
      UserError: if the file ends before, is damaged, or decompresses to far more than a checkpoint does.
    """
    data = self._some(n)
    while len(data) < n:
      more = self._some(n - len(data))
      if not more:
        raise UserError(f'{self.name}: the file is truncated; download it again')
      data += more
    return data

  def pieces(self, n: int) -> Iterator[bytes]:
    """Yields the next `n` bytes, about a megabyte at a time; raises UserError as `read` does."""
    while n:
      piece = self.read(min(n, _PIECE))
      n -= len(piece)
      yield piece

  def read_or_end(self, n: int) -> bytes:
    """Returns the next `n` bytes, or nothing if the file ends here; raises UserError as `read` does."""
    first = self._some(1)
    return first + self.read(n - 1) if first else b''

  def line(self, most: int) -> bytes:
    """Returns the bytes before the next newline, which is dropped; raises UserError for more than `most` of them."""
    found = bytearray()
    while (byte := self.read(1)) != b'\n':
      found += byte
      if len(found) > most:
        raise UserError(f'{self.name}: the file is damaged: a line of text in it does not end')
    return bytes(found)

  def _some(self, n: int) -> bytes:
    if self._n_read + n > self._most:
      raise UserError(
        f'{self.name}: the file decompresses to more than {self._most:,} bytes, which no checkpoint of its size does'
      )
    try:
      data = self._file.read(n)
    except EOFError as error:
      raise UserError(f'{self.name}: the file is truncated; download it again') from error
    except (OSError, zlib.error) as error:
      raise UserError(f'{self.name}: the file is damaged: {error}; download it again') from error
    self._n_read += len(data)
    at = self._raw.tell()
    self._report(at - self._n_reported)
    self._n_reported = at
    return data


@contextmanager
def opened(path: Path, report: Callable[[int], object] = lambda n: None) -> Iterator[Source]:
  """Opens a file.

  Args:
    path: of the file.
    report: called with the number of bytes of the file, as it is stored, that were read since the last call.

  Raises:
    UserError: if it cannot be opened.
  """
  try:
    file = path.open('rb')
  except OSError as error:
    raise unreadable(path, error) from error
  with file:
    yield Source(path, file, report)
