"""Protects the standard streams of a process, which may be closed, full, or pipes without a reader.

The next file that is opened gets the number of a closed stream, and would then receive messages for the terminal. That
file may be a checkpoint.
"""

import errno
import io
import os
import select
import sys


class OutputError(Exception):
  """The standard output cannot be written. It is not an OSError, to distinguish it from errors of other files.

  Attributes:
    reader_left: whether the output is a pipe whose reader has ended.
  """

  def __init__(self, error: OSError):
    found = 'it is closed' if error.errno == errno.EBADF else (error.strerror or str(error)).lower()
    super().__init__(f'the standard output cannot be written: {found}')
    self.reader_left = error.errno == errno.EPIPE


def secure() -> None:
  """Replaces closed streams. After this call, messages never fail, and output fails with OutputError.

  Call it before anything else opens a file.
  """
  # The first two are opened in the wrong direction, so that they fail like closed streams; messages are dropped.
  for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
    try:
      os.fstat(number)
    except OSError:
      os.set_inheritable(os.open(os.devnull, mode), True)  # gets the lowest free number, which is this one
  if sys.stdin is None:
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
  sys.stdout = _text(_Output(1, 'w', closefd=False), sys.stdout)
  sys.stderr = messages(2, sys.stderr)


def messages(number: int, like: io.TextIOWrapper | None = None) -> io.TextIOWrapper:
  """Returns a stream to an open file, with the encoding of another stream; it drops messages that cannot be written."""
  return _text(_Messages(number, 'w', closefd=False), like, line_buffering=True)


def _text(raw: io.FileIO, like: io.TextIOWrapper | None, line_buffering: bool = False) -> io.TextIOWrapper:
  if like is None:
    return io.TextIOWrapper(io.BufferedWriter(raw), errors='backslashreplace', line_buffering=line_buffering)
  line_buffering |= like.line_buffering or like.write_through
  return io.TextIOWrapper(io.BufferedWriter(raw), like.encoding, like.errors, line_buffering=line_buffering)


class _Patient(io.FileIO):
  """Waits for a full pipe, even if another process that shares the pipe made it non-blocking."""

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
  """Fails once and then drops all data, since Python tries to write the rest again when it exits."""

  _has_failed = False

  def write(self, data) -> int:
    if self._has_failed:
      return memoryview(data).nbytes
    try:
      return super().write(data)
    except OSError as error:
      self._has_failed = True
      raise OutputError(error) from error
