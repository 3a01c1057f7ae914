"""Streams a folder of Parquet or JSONL files that is laid out as Hugging Face `datasets` lays them out."""

import dataclasses
import gzip
import hashlib
import re
import zlib
from collections.abc import Iterator
from typing import Any

from etils import epath

from terraformer.config import LocalFolderConfig, UserError, unreadable
from terraformer.data.local_files import decode_utf8, fields_of, read_row
from terraformer.data.store import RECORD

_WORDS = {
  'train': ('train', 'training'),
  'validation': ('validation', 'valid', 'val', 'dev'),
  'test': ('test', 'testing', 'eval', 'evaluation'),
}
_SPLITS = {word: split for split, words in _WORDS.items() for word in words}
_SPLIT = re.compile(rf'(?<![a-z])({"|".join(_SPLITS)})(?![a-z])')  # between digits, dots, dashes and underscores
_READ = ('.parquet', '.jsonl', '.json', '.jsonl.gz', '.json.gz')
_KNOWN = (*_READ, '.csv', '.tsv', '.txt', '.arrow', '.gz', '.zst', '.xz', '.bz2', '.zip', '.tar')
# What Hugging Face's libraries write beside data.
_NO_DATA = re.compile(r'(state|dataset_infos?|dataset_dict|training_args|trainer_state|.*_results)\.json')
_ROWS = 1024  # of a Parquet file that are held at a time


@dataclasses.dataclass(frozen=True)
class Files:
  """What lies in a folder.

  Attributes:
    of_split: the files of each split, sorted.
    others: those that name a split and cannot be read, since they are of another kind.
  """

  of_split: dict[str, list[epath.Path]]
  others: list[epath.Path]


def files_of(config: LocalFolderConfig) -> Files:
  """The files of a folder. Hidden ones, those whose path names no split, and those that are no data do not count.

  Raises:
    UserError: if there is no such folder, no file of training data in it, a file of two splits, or a split of several
      data sets.
  """
  root = epath.Path(config.directory)
  if not config.directory or not root.is_dir():
    found = repr(config.directory) if not config.directory or not root.exists() else f'the file {root}'
    raise UserError(f'LocalFolderConfig.directory: expected a folder, found {found}')
  files, others = {}, []
  for path in sorted(_walk(root)):
    names, name = path.relative_to(root).parts, path.name.lower()
    if any(part.startswith('.') for part in names) or not name.endswith(_KNOWN) or _NO_DATA.fullmatch(name):
      continue
    splits = {_SPLITS[word] for part in names for word in _SPLIT.findall(part.lower())}
    if splits and not name.endswith(_READ):
      others.append(path)
    elif len(splits) > 1:
      found = ' and '.join(sorted(splits))
      raise UserError(f'{path}: expected one split in the names below {root}, found {found}; rename or move it')
    elif splits:
      files.setdefault(splits.pop(), []).append(path)
  for split, paths in files.items():
    _require_one_set(root, split, paths)
  if 'train' not in files:
    found = others[0].name if others else 'none'
    raise UserError(f'{root}: expected files like train-00000.parquet or train.jsonl, found {found}')
  return Files(files, others)


def _require_one_set(root: epath.Path, split: str, paths: list[epath.Path]) -> None:
  """Raises UserError where the files of a split lie in several folders, unless those stand below one of its name."""
  sets = set()
  for path in paths:
    names = path.relative_to(root).parts
    first = next(at for at, name in enumerate(names) if _SPLIT.search(name.lower()))
    sets.add('/'.join(names[:first]) or '.')
  if len(sets) > 1:
    found = ', '.join(sorted(sets))
    raise UserError(f'{root}: expected one data set, found {split} files of several in {found}; name the folder of one')


def _walk(folder: epath.Path) -> Iterator[epath.Path]:
  for path in folder.iterdir():
    if path.is_dir():
      yield from _walk(path)
    else:
      yield path


def version_of(config: LocalFolderConfig) -> str:
  """sha256 of the files' names and sizes."""
  files = files_of(config).of_split.items()
  try:
    listed = [(split, path.name, path.stat().length) for split, paths in files for path in paths]
  except OSError as error:
    raise unreadable(error.filename, error) from error
  return hashlib.sha256(repr(listed).encode()).hexdigest()


def read(config: LocalFolderConfig, files: list[epath.Path], part: int, parts: int) -> Iterator[dict[str, str]]:
  """The texts of a part of the files: every `parts`-th file from number `part` on, or row where there are fewer files.

  An empty text is passed on, and so is white space alone, as an empty one. `record` says where each row stands.

  Raises:
    UserError: for a file that is damaged, and a row without a field or without text there.
  """
  fields = fields_of(config)
  if len(files) >= parts:
    files, part, parts = files[part::parts], 0, 1
  for path in files:
    try:
      for row, where in (_parquet if path.suffix.lower() == '.parquet' else _json_lines)(path, fields, part, parts):
        yield row | {RECORD: where}
    except OSError as error:
      raise unreadable(path, error) from error


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
  return value if value.strip() else ''


def _json_lines(path: epath.Path, fields: dict[str, str], part: int, parts: int) -> Iterator[tuple[dict, str]]:
  for at, line in enumerate(_lines(path)):
    if at % parts == part and line.strip():
      where = f'{path}, line {at + 1}'
      yield read_row(decode_utf8(line, where), fields, where, may_be_empty=True), where


def _lines(path: epath.Path) -> Iterator[bytes]:
  with path.open('rb') as file:
    if path.suffix.lower() != '.gz':
      yield from file
      return
    try:
      with gzip.open(file) as unpacked:
        yield from unpacked
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
      raise UserError(f'{path}: expected a whole gzip file, found {str(error).rstrip(".")}') from error
