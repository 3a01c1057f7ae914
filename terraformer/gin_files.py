"""Reads gin files as people write them: under any name, and from any editor."""

import contextlib
import io
import os
from collections.abc import Iterator

from terraformer.config import UserError, unreadable


def is_there(path: str) -> bool:
  """Whether something has this name, be it a file or not: what is wrong with it is then said by `opened`."""
  return os.path.lexists(path)


@contextlib.contextmanager
def opened(path: str) -> Iterator[io.StringIO]:
  """The text of a file, with a `name`, without a byte-order mark, and with line feeds alone at the ends of lines.

  Raises:
    UserError: if it cannot be read, is not UTF-8, or has nothing in it.
  """
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
  lines = io.StringIO(text, newline=None)
  lines.name = path
  yield lines
