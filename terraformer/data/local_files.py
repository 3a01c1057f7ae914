"""Reads a user's own `.txt` and `.jsonl` files into examples."""

import dataclasses
import glob
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from terraformer.config import LocalFilesConfig, LocalFolderConfig, TfdsConfig, UserError, to_dict, unreadable
from terraformer.config.words import flag
from terraformer.data.addresses import normalized
from terraformer.data.leaks import require_apart
from terraformer.data.source import Example, HeldSource, fingerprint_of
from terraformer.data.store import FEATURES, RECORD, SPLITS, Manifest, Origin, sha256_of

_NO_FLAGS: Mapping[str, str] = {}
_HELD_OUT = 20  # one example in this many is held out
# Not str.splitlines, which also ends a line at form feeds (the page breaks of PDFs) and Unicode separators.
_LINE_END = re.compile(r'\r\n|\n|\r')


class LocalFiles(HeldSource):
  """The files that a `LocalFilesConfig` names."""

  def _load(self, show_progress: bool) -> tuple[dict[str, list[Example]], Origin]:
    paths, examples = source_paths(self.config), local_files(self.config)
    digests = {str(path): sha256_of(path) for found in paths.values() for path in found}
    return examples, Origin(fingerprint_of(examples), digests)

  @property
  def features(self) -> tuple[str, ...]:
    is_text = source_paths(self.config)['train'][0].suffix == '.txt'
    return FEATURES[1:] if is_text else tuple(fields_of(self.config))

  def plan(self) -> dict[str, Any]:
    return to_dict(
      dataclasses.replace(
        self.config, **{split: tuple(map(normalized, getattr(self.config, split))) for split in SPLITS}
      )
    )

  def is_as_prepared(self, manifest: Manifest) -> bool:
    try:
      found = source_paths(self.config)
    except UserError:
      return True
    given = {path.absolute() for paths in found.values() for path in paths}
    return given == {Path(name).absolute() for name in manifest.sources}


def local_files(config: LocalFilesConfig) -> dict[str, list[Example]]:
  """Returns the examples of each split: `targets`, `inputs` if there is an `inputs_field`, and `record`, the location.

  A `.txt` file gives one example per paragraph (lines up to a blank line). A `.jsonl` file gives one per line, whose
  texts may be empty. If `validation` or `test` is not given, a twentieth of the training examples is used for it,
  chosen by a hash of the text. Equal texts stay together, and at least one example is moved unless training would be
  left without examples.

  Raises:
    UserError: if anything is wrong with a file.
  """
  paths = source_paths(config)
  kinds = {path.suffix for found in paths.values() for path in found}
  if len(kinds) > 1:
    raise UserError(f'LocalFilesConfig: all files must be of one kind, found {" and ".join(sorted(kinds))}')
  read = _read_paragraphs if kinds == {'.txt'} else _read_json_lines
  splits = {split: [example for path in found for example in read(path, config)] for split, found in paths.items()}
  for split in ('validation', 'test'):
    if not paths[split]:
      splits['train'], splits[split] = _hold_out(splits['train'], split)
  return splits


def source_paths(config: LocalFilesConfig) -> dict[str, list[Path]]:
  """Returns the files of each split, sorted.

  Raises:
    UserError: if a path does not exist, a pattern matches nothing, a file is of another kind, or a training file is
      also in another split.
  """
  config.require_text()
  paths = {}
  for split in ('train', 'validation', 'test'):
    found = {}  # by absolute path: a file is read once and at the same position, however it is named
    for pattern in getattr(config, split):
      matches = _matches(pattern)
      if not matches:
        raise UserError(f'LocalFilesConfig.{split}: no file matches {pattern}')
      found = {Path(match).absolute(): Path(match) for match in matches} | found
    for path in found.values():
      if path.is_dir() or path.suffix not in ('.txt', '.jsonl'):
        kind = 'a folder' if path.is_dir() else f'{path.suffix or "a name without an extension"}'
        raise UserError(f'{path}: expected a .txt or .jsonl file, found {kind}')
    paths[split] = [path for _, path in sorted(found.items())]
  require_apart(paths, 'LocalFilesConfig')
  return paths


def _matches(pattern: str) -> list[str]:
  """Returns the files that match a pattern; existing files and parent folders are matched literally."""
  path = Path(pattern)
  if path.exists():
    return [pattern]
  known = next(folder for folder in path.parents if folder.exists())
  rest = path.relative_to(known)
  return glob.glob(f'{glob.escape(str(known))}/{rest}', recursive=True)  # noqa: PTH207


def read_text(path: Path, may_be_empty: bool = False) -> str:
  """Reads a whole UTF-8 file.

  Raises:
    UserError: if it cannot be read, is not UTF-8, or is empty and must not be.
  """
  try:
    data = path.read_bytes()
  except OSError as error:
    raise unreadable(path, error) from error
  return decode_utf8(data, str(path), may_be_empty)


def decode_utf8(data: bytes, name: str, may_be_empty: bool = False) -> str:
  """Decodes bytes that came from `name`; raises UserError as `read_text` does."""
  if not data.strip() and not may_be_empty:
    raise UserError(f'{name}: the text is empty')
  try:
    return data.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    at = error.start
    raise UserError(f'{name}: expected UTF-8, found the byte 0x{error.object[at]:02x} at offset {at}') from error


def read_rows(
  path: Path, fields: dict[str, str], may_be_empty: bool = False, named_by: Mapping[str, str] = _NO_FLAGS
) -> Iterator[tuple[dict[str, str], str]]:
  """Yields each line of a file with one JSON object per line, and its location: for each name in `fields`, the text in
  the field it names.

  Args:
    path: the file.
    fields: for each name, the field of an object.
    may_be_empty: whether a text may be empty.
    named_by: for each name, the flag that sets the field, for the message about a line without it.

  Raises:
    UserError: if a line is not an object, lacks a field, or has no text there; or as `read_text` does.
  """
  text = read_text(path, may_be_empty=True)
  if not text.strip():
    raise UserError(f'{path} has no lines')
  for number, line in enumerate(text.split('\n'), 1):
    if line.strip():
      where = f'{path}, line {number}'
      yield read_row(line, fields, where, may_be_empty, named_by), where


def read_row(
  line: str, fields: dict[str, str], where: str, may_be_empty: bool = False, named_by: Mapping[str, str] = _NO_FLAGS
) -> dict[str, str]:
  """Returns the texts of one line; if `may_be_empty`, a text of white space alone becomes empty.

  Raises:
    UserError: as `read_rows` does; `where` names the line, and `named_by` is used as there.
  """
  try:
    value = json.loads(line)
  except json.JSONDecodeError as error:
    if line.strip() == '[':
      raise UserError(f'{where}: expected a JSON object, found the start of a list') from error
    raise UserError(f'{where} is not valid JSON at character {error.colno}: {error.msg}') from error
  except (ValueError, RecursionError) as error:
    raise UserError(f'{where} is not valid JSON: {error}') from error
  if not isinstance(value, dict):
    raise UserError(f'{where}: expected a JSON object, found {type(value).__name__}')
  for name, field in fields.items():
    if field not in value:
      advice = f'; name yours with {named_by[name]}' if name in named_by else ''
      raise UserError(f'{where}: expected the field {field!r}, found the fields {sorted(value)}{advice}')
    if not isinstance(value[field], str) or not (may_be_empty or value[field].strip()):
      raise UserError(f'{where}: expected text in the field {field!r}, found {value[field]!r:.80}')
    if any('\ud800' <= character <= '\udfff' for character in value[field]):
      raise UserError(f'{where}: expected text in the field {field!r}, found half a surrogate pair')
  return {name: value[field] if value[field].strip() else '' for name, field in fields.items()}


def _read_paragraphs(path: Path, config: LocalFilesConfig) -> list[Example]:
  paragraphs, lines = [], []
  for number, line in enumerate([*_LINE_END.split(read_text(path)), ''], 1):
    if line.strip():
      lines.append(line)
    elif lines:
      paragraphs.append({'targets': '\n'.join(lines), RECORD: f'{path}, line {number - len(lines)}'})
      lines = []
  return paragraphs


def _read_json_lines(path: Path, config: LocalFilesConfig) -> list[Example]:
  return [row | {RECORD: where} for row, where in read_rows(path, fields_of(config), True, flags_of(config))]


def fields_of(config: LocalFilesConfig | LocalFolderConfig | TfdsConfig) -> dict[str, str]:
  """Returns the field of each feature; `targets` always has one."""
  fields = {'inputs': config.inputs_field, 'targets': config.targets_field}
  return {name: field for name, field in fields.items() if field or name == 'targets'}


def flags_of(config: LocalFilesConfig | LocalFolderConfig) -> dict[str, str]:
  """Returns the flags that name the field of each feature."""
  return {name: flag(f'{type(config).__name__}.{name}_field', repr('NAME')) for name in FEATURES}


def _hold_out(examples: list[Example], split: str) -> tuple[list[Example], list[Example]]:
  """Moves about a twentieth of the examples to a split, keeping equal examples together."""
  texts = [sorted((name, text) for name, text in example.items() if name != RECORD) for example in examples]
  keys = [hashlib.sha256(f'{split}\0{text}'.encode()).digest() for text in texts]
  distinct = sorted(set(keys))
  moved = set(distinct[: max(1, len(distinct) // _HELD_OUT)]) if len(distinct) > 1 else set()
  stay = [example for example, key in zip(examples, keys, strict=True) if key not in moved]
  return stay, [example for example, key in zip(examples, keys, strict=True) if key in moved]
