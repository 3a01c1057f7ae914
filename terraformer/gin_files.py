"""Reads gin files with any name and from any editor."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from terraformer.config import UserError, unreadable
from terraformer.config.renames import present_names


def is_there(path: str) -> bool:
  """Returns whether the path exists, even if it is not a file; `opened` then reports what is wrong with it."""
  return os.path.lexists(path)


def with_present_names(text: str, where: str) -> str:
  """Returns gin text with present names; for each old name, prints a line that begins with `where` to stderr."""
  return present_names(text, lambda line: print(f'{where}: {line}', file=sys.stderr))


class Reader:
  """Reads the files of one configuration, and the files that they include."""

  def __init__(self):
    self._open: list[str] = []  # a file stays open while its included files are read

  @contextlib.contextmanager
  def opened(self, path: str) -> Iterator[io.StringIO]:
    """Yields the text of a file, with a `name`, without a byte-order mark, and with only line feeds as line ends.

    Raises:
      UserError: if the file cannot be read, is not UTF-8, is empty, or includes itself.
    """
    known = os.path.realpath(path)
    if known in self._open:
      raise UserError(f'{path} includes itself, directly or through another file; remove that include')
    lines = io.StringIO(with_present_names(_text(path), path), newline=None)
    lines.name = path
    self._open.append(known)
    try:
      yield lines
    finally:
      self._open.pop()


def _text(path: str) -> str:
  try:
    with open(path, 'rb') as file:  # noqa: PTH123 (gin gives text)
      text = file.read().decode('utf-8-sig')
  except OSError as error:
    raise unreadable(path, error) from error
  except UnicodeDecodeError as error:
    at = error.start
    raise UserError(f'{path}: expected UTF-8, found the byte 0x{error.object[at]:02x} at offset {at}') from error
  if not text.strip():
    raise UserError(f'{path}: the gin file is empty')
  return text
