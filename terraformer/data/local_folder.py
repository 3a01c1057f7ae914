"""Streams a folder of Parquet or JSONL files that is laid out as Hugging Face `datasets` lays them out."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from etils import epath

from terraformer.config import LocalFolderConfig, UserError
from terraformer.data.local_files import decode_utf8, read_row

_SPLITS = {
  'train': 'train',
  'validation': 'validation',
  'valid': 'validation',
  'val': 'validation',
  'dev': 'validation',
  'test': 'test',
  'eval': 'test',
}
_ENDINGS = ('.parquet', '.jsonl', '.json')
_ROWS = 1024  # of a Parquet file that are held at a time


def files_of(config: LocalFolderConfig) -> dict[str, list[epath.Path]]:
  """The files of each split, sorted. Hidden files and those of other kinds do not count.

  Raises:
    UserError: if there is no such folder, or no file of training data in it.
  """
  root = epath.Path(config.directory)
  if not config.directory or not root.is_dir():
    found = repr(config.directory) if not config.directory or not root.exists() else f'the file {root}'
    raise UserError(f'LocalFolderConfig.directory: expected a folder, found {found}')
  files: dict[str, list[epath.Path]] = {}
  for path in sorted(_walk(root)):
    names = path.relative_to(root).parts
    split = next((found for name in reversed(names) if (found := _split_of(name))), None)
    if split and path.suffix in _ENDINGS and not any(name.startswith('.') for name in names):
      files.setdefault(split, []).append(path)
  if 'train' not in files:
    raise UserError(f'{root}: expected files like train-00000.parquet or train.jsonl, found none')
  return files


def _walk(folder: epath.Path) -> Iterator[epath.Path]:
  for path in folder.iterdir():
    if path.is_dir():
      yield from _walk(path)
    else:
      yield path


def _split_of(name: str) -> str | None:
  return _SPLITS.get(re.match('[a-z]*', name.lower())[0])


def version_of(config: LocalFolderConfig) -> str:
  """sha256 of the files' names and sizes."""
  try:
    listed = [(split, path.name, path.stat().length) for split, files in files_of(config).items() for path in files]
  except OSError as error:
    raise _unreadable(error.filename, error) from error
  return hashlib.sha256(repr(listed).encode()).hexdigest()


def read(config: LocalFolderConfig, files: list[epath.Path], part: int, parts: int) -> Iterator[dict[str, str]]:
  """The texts of a part of the files: every `parts`-th file from number `part` on, or row where there are fewer files.

  An empty text is passed on, and so is white space alone, as an empty one. `record` says where each row stands.

  Raises:
    UserError: for a file that is damaged, and a row without a field or without text there.
  """
  fields = {'inputs': config.inputs_field, 'targets': config.targets_field}
  fields = {name: field for name, field in fields.items() if field}
  if len(files) >= parts:
    files, part, parts = files[part::parts], 0, 1
  for path in files:
    try:
      for row, where in (_parquet if path.suffix == '.parquet' else _json_lines)(path, fields, part, parts):
        yield {name: text if text.strip() else '' for name, text in row.items()} | {'record': where}
    except OSError as error:
      raise _unreadable(path, error) from error


def _unreadable(path: Any, error: OSError) -> UserError:
  return UserError(f'{path}: expected a file that can be read, found {(error.strerror or str(error)).lower()}')


def _parquet(path: epath.Path, fields: dict[str, str], part: int, parts: int) -> Iterator[tuple[dict, str]]:
  import pyarrow
  import pyarrow.parquet

  try:
    with path.open('rb') as file:
      table = pyarrow.parquet.ParquetFile(file)
      for field in fields.values():
        if field not in table.schema_arrow.names:
          found = sorted(table.schema_arrow.names)
          raise UserError(f'{path}: expected the column {field!r}, found the columns {found}')
      first = 0
      for batch in table.iter_batches(_ROWS, columns=list(fields.values())):
        chosen = range((part - first) % parts, batch.num_rows, parts)
        for at, row in zip(chosen, batch.take(list(chosen)).to_pylist() if chosen else [], strict=True):
          where = f'{path}, row {first + at + 1}'
          yield {name: _text(row[field], field, where) for name, field in fields.items()}, where
        first += batch.num_rows
  except (pyarrow.ArrowInvalid, UnicodeDecodeError) as error:
    raise UserError(f'{path}: expected a whole Parquet file, found {str(error).splitlines()[0]}') from error


def _text(value: Any, field: str, where: str) -> str:
  if not isinstance(value, str):
    raise UserError(f'{where}: expected text in the field {field!r}, found {value!r:.80}')
  return value


def _json_lines(path: epath.Path, fields: dict[str, str], part: int, parts: int) -> Iterator[tuple[dict, str]]:
  with path.open('rb') as file:
    for at, line in enumerate(file):
      if at % parts == part and line.strip():
        where = f'{path}, line {at + 1}'
        yield read_row(decode_utf8(line, where), fields, where, may_be_empty=True), where
