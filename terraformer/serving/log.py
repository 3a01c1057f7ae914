"""The log of a server: one line for each request, without the texts of users."""

import logging
import os
import sys
from pathlib import Path

from terraformer.config import refused
from terraformer.config.base import printable

LEVELS = ('debug', 'info', 'warning', 'error')


class _Lines(logging.Handler):
  """Writes each line at once. A line that cannot be written is counted, and the first of them reported."""

  def __init__(self, path: Path | None):
    super().__init__()
    self._path = path
    self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    self.n_lost = 0

  def emit(self, record: logging.LogRecord) -> None:
    line = f'{printable(self.format(record))}\n'
    try:
      if self._file is None:
        sys.stderr.write(line)
      else:
        os.write(self._file, line.encode())
    except OSError as error:
      self.n_lost += 1
      if self.n_lost == 1:
        why = (error.strerror or str(error)).lower()
        print(f'terraformer serve: cannot write to {self._path}: {why}; serving goes on', file=sys.stderr)

  def close(self) -> None:
    if self._file is not None:
      os.close(self._file)
      self._file = None
    super().close()


class Log:
  """The log of one server.

  Attributes:
    logger: takes messages.
  """

  def __init__(self, level: str, path: Path | None = None):
    """Opens the log.

    Args:
      level: one of `LEVELS`.
      path: a file to which lines are appended; None for the standard error.

    Raises:
      UserError: if the file cannot be opened.
    """
    try:
      self._lines = _Lines(path)
    except OSError as error:
      raise refused(path or 'the standard error', 'write', error) from error
    self._lines.setFormatter(logging.Formatter('%(asctime)s %(levelname)s %(message)s', '%Y-%m-%dT%H:%M:%S%z'))
    self.logger = logging.getLogger('terraformer.serving')  # the scheduler's messages go there as well
    self.logger.setLevel(level.upper())
    self.logger.propagate = False
    self.logger.addHandler(self._lines)

  @property
  def n_lost(self) -> int:
    """Number of lines that could not be written."""
    return self._lines.n_lost

  def close(self) -> None:
    """Closes the file."""
    self.logger.removeHandler(self._lines)
    self._lines.close()
