"""Reads gin files as people write them: under any name, and from any editor."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from terraformer.config import UserError, unreadable
from terraformer.config.renames import present_names


def is_there(path: str) -> bool:
  """Whether something has this name, be it a file or not: what is wrong with it is then said by `opened`."""
  return os.path.lexists(path)


def with_present_names(text: str, where: str) -> str:
  """Gin text with the present names; for each old one the standard error gets a line that begins with `where`."""
  return present_names(text, lambda line: print(f'{where}: {line}', file=sys.stderr))


class Reader:
  """Reads the files of one configuration, and those that they include."""

  def __init__(self):
    self._open: list[str] = []  # an included file is read while the one that includes it is open

  @contextlib.contextmanager
  def opened(self, path: str) -> Iterator[io.StringIO]:
    """The text of a file, with a `name`, without a byte-order mark, and with line feeds alone at the ends of lines.

    Raises:
      UserError: if it cannot be read, is not UTF-8, has nothing in it, or includes itself.
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
    raise UserError(f'{path}: expected a gin file, found it empty')
  return text
