"""Reads prompts from the command line, a file or the standard input."""

import errno
import os
import re
import sys
from pathlib import Path

from terraformer.config import UserError, unreadable
from terraformer.data.local_files import decode_utf8, read_rows, read_text


def read_prompts(
  text: str | None, file: str | None, stdin: str | None, field: str, continues: bool = False
) -> list[str]:
  """Returns the prompts; a `.jsonl` file has one per line.

  Args:
    text, file, stdin: exactly one of a text, a path, and `-` for the standard input.
    field: name of the field with the text in a `.jsonl` file.
    continues: whether the model continues the prompts. They may then be empty, and the final newline of a file or the
      standard input is removed.

  Raises:
    UserError: if not exactly one is given, or it is missing, empty, not UTF-8 or lacks the field.
  """
  given = [value for value in (text, file, stdin) if value is not None]
  if len(given) != 1:
    raise UserError(f'give exactly one of --input, --input_file and - (standard input); {len(given)} were given')
  if text is not None:
    # Python passes bytes that are not UTF-8 as lone surrogates.
    prompts = [decode_utf8(os.fsencode(text), '--input', continues)]
  elif file is not None and Path(file).suffix == '.jsonl':
    prompts = [
      row['inputs'] for row, _ in read_rows(Path(file), {'inputs': field}, continues, {'inputs': '--field=NAME'})
    ]
  else:
    if file is not None:
      whole = read_text(Path(file), continues)
    else:
      whole = decode_utf8(_read_stdin(), 'standard input', continues)
    prompts = [re.sub(r'\r?\n\Z', '', whole) if continues else whole]
  for prompt in prompts:
    require_text(prompt, may_be_empty=continues)
  return prompts


def _read_stdin() -> bytes:
  try:
    return sys.stdin.buffer.read()
  except OSError as error:
    if error.errno == errno.EBADF:
      raise UserError('standard input is closed; pipe a text into it, or use --input') from error
    raise unreadable('standard input', error) from error


def require_text(source: object, may_be_empty: bool = False) -> None:
  """Raises UserError unless `source` is valid Unicode text that is not blank, or blank where it `may_be_empty`."""
  if not isinstance(source, str):
    raise UserError(f'input: expected text, found {type(source).__name__}')
  if not source.strip() and not may_be_empty:
    raise UserError('input: the text is empty; this model needs a source')
  try:
    source.encode()
  except UnicodeEncodeError as error:
    raise UserError(f'input: expected text, found a lone surrogate at character {error.start}') from error
