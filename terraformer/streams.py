"""The standard streams of a process, each of which may be closed, full, or a pipe whose other end has gone.

Where one is closed, its number would go to the next file that is opened, and messages for the terminal would end up in
that file: in a checkpoint, say.
"""

import errno
import io
import os
import select
import sys


class OutputError(Exception):
  """The standard output cannot be written. Not an OSError, which would be taken for one of another file.

  Attributes:
    reader_left: whether it is a pipe that nobody reads any more.
  """

  def __init__(self, error: OSError):
    found = 'it is closed' if error.errno == errno.EBADF else (error.strerror or str(error)).lower()
    super().__init__(f'the standard output cannot be written: {found}')
    self.reader_left = error.errno == errno.EPIPE


def secure() -> None:
  """Puts something in the place of closed streams; from then on messages never fail, and output fails in OutputError.

  To be called before anything else opens a file.
  """
  # Opened the wrong way round, the first two go on to fail as closed ones do; messages are dropped.
  for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
    try:
      os.fstat(number)
    except OSError:
      os.set_inheritable(os.open(os.devnull, mode), True)  # the lowest number that is free, which is this one
  if sys.stdin is None:
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
  sys.stdout = _text(_Output(1, 'w', closefd=False), sys.stdout)
  sys.stderr = messages(2, sys.stderr)


def messages(number: int, like: io.TextIOWrapper | None = None) -> io.TextIOWrapper:
  """A stream to an open file, with the encoding of another one; messages that cannot be written are lost."""
  return _text(_Messages(number, 'w', closefd=False), like, line_buffering=True)


def _text(raw: io.FileIO, like: io.TextIOWrapper | None, line_buffering: bool = False) -> io.TextIOWrapper:
  if like is None:
    return io.TextIOWrapper(io.BufferedWriter(raw), errors='backslashreplace', line_buffering=line_buffering)
  line_buffering |= like.line_buffering or like.write_through
  return io.TextIOWrapper(io.BufferedWriter(raw), like.encoding, like.errors, line_buffering=line_buffering)


class _Patient(io.FileIO):
  """Waits for a pipe that is full, also where whoever shares it has asked the system not to."""

  def write(self, data) -> int:
    while (written := super().write(data)) is None:
      select.select([], [self], [])
    return written


class _Messages(_Patient):
  def write(self, data) -> int:
    try:
      return super().write(data)
    except OSError:
      return memoryview(data).nbytes


class _Output(_Patient):
  """Fails once; the rest is dropped, since Python would try again when it ends."""

  _has_failed = False

  def write(self, data) -> int:
    if self._has_failed:
      return memoryview(data).nbytes
    try:
      return super().write(data)
    except OSError as error:
      self._has_failed = True
      raise OutputError(error) from error
