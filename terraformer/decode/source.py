"""What decoding reads: a text, a file, or the standard input."""

import sys
from pathlib import Path

from terraformer.config import UserError
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
    sources = [text]
  elif stdin is not None:
    sources = [decode_utf8(sys.stdin.buffer.read(), 'standard input')]
  elif Path(file).suffix == '.jsonl':
    sources = [row['inputs'] for row in read_rows(Path(file), {'inputs': field})]
  else:
    sources = [read_text(Path(file))]
  if not all(source.strip() for source in sources):
    raise UserError('input: expected a text, found nothing but white space')
  return sources
