"""Streams a folder of Parquet or JSONL files in the layout of Hugging Face `datasets`."""

import dataclasses
import functools
import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Iterator
from typing import Any

from etils import epath

from terraformer.config import LocalFolderConfig, UserError, first_line, refused, to_dict, unreadable
from terraformer.data.addresses import normalized
from terraformer.data.leaks import require_apart
from terraformer.data.local_files import decode_utf8, fields_of, flags_of, read_row
from terraformer.data.report import bar
from terraformer.data.source import Example, Source
from terraformer.data.store import RECORD, Manifest, Origin

_WORDS = {
  'train': ('train', 'training'),
  'validation': ('validation', 'valid', 'val', 'dev'),
  'test': ('test', 'testing', 'eval', 'evaluation'),
}
_SPLITS = {word: split for split, words in _WORDS.items() for word in words}
_SPLIT = re.compile(rf'(?<![a-z])({"|".join(_SPLITS)})(?![a-z])')  # between digits, dots, dashes and underscores
_READ = ('.parquet', '.jsonl', '.json', '.jsonl.gz', '.json.gz')
_KNOWN = (*_READ, '.csv', '.tsv', '.txt', '.arrow', '.gz', '.zst', '.xz', '.bz2', '.zip', '.tar')
# Files that Hugging Face libraries write next to the data.
_NO_DATA = re.compile(r'(state|dataset_infos?|dataset_dict|training_args|trainer_state|.*_results)\.json')
_ROWS = 1024  # rows of a Parquet file in memory at a time
_SOON_READ = 100_000_000  # bytes that can be read quickly


class LocalFolder(Source):
  """The folder that a `LocalFolderConfig` names."""

  tells_where = True

  @functools.cached_property
  def _files(self) -> 'Files':
    return files_of(self.config)

  @property
  def features(self) -> tuple[str, ...]:
    return tuple(fields_of(self.config))

  @property
  def splits(self) -> list[str]:
    return list(self._files.of_split)

  def open(self, show_progress: bool) -> None:
    _ = self._files

  def read(self, split: str, part: int, parts: int) -> Iterator[Example]:
    return read(self.config, self._files.of_split[split], part, parts)

  def origin(self) -> Origin:
    dropped = {reason: len(paths) for reason, paths in self._files.passed_over.items()}
    first = {reason: str(paths[0]) for reason, paths in self._files.passed_over.items() if paths}
    return Origin(version_of(self.config), dropped=dropped, first_dropped=first)

  def held_out(self, show_progress: bool) -> Iterator[Example]:
    with bar(show_progress, 'reading held-out examples'):
      yield from super().held_out(show_progress)

  def plan(self) -> dict[str, Any]:
    return to_dict(dataclasses.replace(self.config, directory=normalized(self.config.directory)))

  def is_as_prepared(self, manifest: Manifest) -> bool:
    try:
      return version_of(self.config) == manifest.corpus_fingerprint
    except UserError:
      return True


@dataclasses.dataclass(frozen=True)
class Files:
  """The data files of a folder.

  Attributes:
    of_split: the files of each split, sorted.
    passed_over: files that are not read, by reason: `files of another kind` belong to a split, and `files of no
      split` name no split, nor do the folders that contain them.
  """

  of_split: dict[str, list[epath.Path]]
  passed_over: dict[str, list[epath.Path]]


def files_of(config: LocalFolderConfig) -> Files:
  """Finds the data files of a folder, ignoring hidden files and files that are not data.

  Raises:
    UserError: if the folder does not exist or cannot be read, it has no training data, a file belongs to two splits
      (also under two names) or occurs twice, or a split has several data sets.
  """
  root = epath.Path(config.directory)
  if not config.directory or not root.is_dir():
    found = repr(config.directory) if not config.directory or not root.exists() else f'the file {root}'
    raise UserError(f'LocalFolderConfig.directory: expected a folder, found {found}')
  files, others, without = {}, [], []
  try:
    paths = sorted(_walk(root))
  except OSError as error:
    raise refused(root, 'read', error) from error
  for path in paths:
    names, name = path.relative_to(root).parts, path.name.lower()
    if any(part.startswith('.') for part in names) or not name.endswith(_KNOWN) or _NO_DATA.fullmatch(name):
      continue
    if path.with_name(f'{path.name}.gz') in paths:
      raise UserError(f'{path}: the folder also contains {path.name}.gz; remove one of them')
    splits = {_SPLITS[word] for part in names for word in _SPLIT.findall(part.lower())}
    if splits and not name.endswith(_READ):
      others.append(path)
    elif len(splits) > 1:
      found = ' and '.join(sorted(splits))
      raise UserError(f'{path}: the path below {root} names more than one split ({found}); rename or move the file')
    elif splits:
      files.setdefault(splits.pop(), []).append(path)
    elif name.endswith(_READ):
      without.append(path)
  for split, paths in files.items():
    _require_one_set(root, split, paths)
  if 'train' not in files:
    found = ', '.join(path.name for path in (others + without)[:3]) or 'none'
    raise UserError(f'{root}: expected files like train-00000.parquet or train.jsonl, found {found}')
  require_apart(files, str(root))
  return Files(files, {'files of another kind': others, 'files of no split': without})


def _require_one_set(root: epath.Path, split: str, paths: list[epath.Path]) -> None:
  """Raises UserError if the files of a split are in several folders, unless a folder named for the split holds them."""
  sets = set()
  for path in paths:
    names = path.relative_to(root).parts
    first = next(at for at, name in enumerate(names) if _SPLIT.search(name.lower()))
    sets.add('/'.join(names[:first]) or '.')
  if len(sets) > 1:
    found = ', '.join(sorted(sets)[:5]) + (' ...' if len(sets) > 5 else '')
    raise UserError(f'{root}: {split} files belong to several data sets ({found}); name the folder of one data set')


def _walk(folder: epath.Path) -> Iterator[epath.Path]:
  for path in folder.iterdir():
    if not path.is_dir():
      yield path
    elif not os.path.realpath(folder).startswith(os.path.realpath(path)):  # skips a link back to a parent
      yield from _walk(path)


def version_of(config: LocalFolderConfig) -> str:
  """Returns the sha256 of the files' names and sizes, and of their contents if those can be read quickly."""
  files = files_of(config).of_split.items()
  try:
    listed = [(split, path, path.stat().length) for split, paths in files for path in paths]
    digest = hashlib.sha256(repr([(split, path.name, size) for split, path, size in listed]).encode())
    if sum(size for _, _, size in listed) <= _SOON_READ:
      for _, path, _ in listed:
        digest.update(path.read_bytes())
  except OSError as error:
    raise unreadable(error.filename, error) from error
  return digest.hexdigest()


def read(config: LocalFolderConfig, files: list[epath.Path], part: int, parts: int) -> Iterator[dict[str, str]]:
  """Yields the texts of a part: every `parts`-th file from number `part` on, or every such line if there are too few.

  Empty texts are included, and white space alone counts as empty. `record` gives the location of each line.

  Raises:
    UserError: if a file is damaged, or a line lacks a field or has no text there.
  """
  fields, named_by = fields_of(config), flags_of(config)
  if len(files) >= parts:
    files, part, parts = files[part::parts], 0, 1
  for path in files:
    try:
      rows = _parquet if path.suffix.lower() == '.parquet' else _json_lines
      for row, where in rows(path, fields, named_by, part, parts):
        yield row | {RECORD: where}
    except OSError as error:
      raise unreadable(path, error) from error


def _parquet(
  path: epath.Path, fields: dict[str, str], named_by: dict[str, str], part: int, parts: int
) -> Iterator[tuple[dict, str]]:
  import pyarrow
  import pyarrow.parquet

  try:
    with path.open('rb') as file:
      table = pyarrow.parquet.ParquetFile(file)
      for feature, field in fields.items():
        if field not in table.schema_arrow.names:
          found = sorted(table.schema_arrow.names)
          raise UserError(
            f'{path}: expected the column {field!r}, found the columns {found}; name yours with {named_by[feature]}'
          )
      first = 0
      for batch in table.iter_batches(_ROWS, columns=list(fields.values())):
        chosen = range((part - first) % parts, batch.num_rows, parts)
        for at, row in zip(chosen, batch.take(list(chosen)).to_pylist() if chosen else [], strict=True):
          where = f'{path}, row {first + at + 1}'
          yield {name: _text(row[field], field, where) for name, field in fields.items()}, where
        first += batch.num_rows
  except (pyarrow.ArrowInvalid, UnicodeDecodeError) as error:
    raise UserError(f'{path}: the Parquet file is damaged: {first_line(error)}') from error


def _text(value: Any, field: str, where: str) -> str:
  if not isinstance(value, str):
    raise UserError(f'{where}: expected text in the field {field!r}, found {value!r:.80}')
  return value if value.strip() else ''


def _json_lines(
  path: epath.Path, fields: dict[str, str], named_by: dict[str, str], part: int, parts: int
) -> Iterator[tuple[dict, str]]:
  for at, line in enumerate(_lines(path)):
    if at % parts == part and line.strip():
      where = f'{path}, line {at + 1}'
      yield read_row(decode_utf8(line, where), fields, where, True, named_by), where


def _lines(path: epath.Path) -> Iterator[bytes]:
  with path.open('rb') as file:
    if path.suffix.lower() != '.gz':
      yield from file
      return
    try:
      with gzip.open(file) as unpacked:
        yield from unpacked
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
      raise UserError(f'{path}: the gzip file is damaged: {str(error).rstrip(".")}') from error
