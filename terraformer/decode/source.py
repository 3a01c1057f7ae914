"""What decoding reads: a text, a file, or the standard input."""

import errno
import os
import sys
from pathlib import Path

from terraformer.config import UserError, unreadable
from terraformer.data.local_files import decode_utf8, read_rows, read_text


def read_sources(text: str | None, file: str | None, stdin: str | None, field: str) -> list[str]:
  """The source texts; of a `.jsonl` file one a line.

  Args:
    text, file, stdin: exactly one of a text, a path, and `-` for the standard input.
    field: of the source in a `.jsonl` file.

  Raises:
    UserError: if not exactly one is given, or it is missing, empty, not UTF-8 or lacks the field.
  """
  given = [value for value in (text, file, stdin) if value is not None]
  if len(given) != 1:
    raise UserError(f'expected one of --input, --input_file and -, found {len(given)} of them')
  if text is not None:
    sources = [decode_utf8(os.fsencode(text), '--input')]  # bytes that are not UTF-8 came as half surrogate pairs
  elif stdin is not None:
    sources = [decode_utf8(_read_stdin(), 'standard input')]
  elif Path(file).suffix == '.jsonl':
    sources = [row['inputs'] for row, _ in read_rows(Path(file), {'inputs': field})]
  else:
    sources = [read_text(Path(file))]
  for source in sources:
    require_text(source)
  return sources


def _read_stdin() -> bytes:
  try:
    return sys.stdin.buffer.read()
  except OSError as error:
    if error.errno == errno.EBADF:
      raise UserError('standard input: expected a text, found it closed') from error
    raise unreadable('standard input', error) from error


def require_text(source: object) -> None:
  """Raises UserError unless it is a text of whole characters, some of which are not white space."""
  if not isinstance(source, str):
    raise UserError(f'input: expected a text, found {type(source).__name__}')
  if not source.strip():
    raise UserError('input: expected a text, found nothing but white space')
  try:
    source.encode()
  except UnicodeEncodeError as error:
    raise UserError(f'input: expected a text, found half a surrogate pair at character {error.start}') from error
