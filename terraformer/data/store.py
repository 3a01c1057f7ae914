"""The format of a prepared folder: records of tokens, a vocabulary, and a manifest that is written last.

train-00000-of-00002.array_record ...   examples, packed by msgpack
vocabulary.model                        sentencepiece, without added sentinels
unigram_counts.npy                      int64[tasks, vocabulary size]
manifest.json                           `Manifest`; a folder without it is ignored
"""

import dataclasses
import hashlib
import io
import json
import typing
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from terraformer import config as config_lib
from terraformer.config import DataConfig, UserError
from terraformer.config.objectives import ObjectiveConfig
from terraformer.config.words import flag, newer
from terraformer.data.addresses import path_of
from terraformer.data.scoring import Scoring

FORMAT = 7
_READ = (5, 6, FORMAT)  # readable formats; the configs of older formats are migrated
MANIFEST, VOCABULARY, UNIGRAMS = 'manifest.json', 'vocabulary.model', 'unigram_counts.npy'
FEATURES = ('inputs', 'targets')
SPLITS = ('train', 'validation', 'test')
_MOST = 2**53  # largest count; JSON numbers are exact integers up to here
_DIRECTORY = flag('DataConfig.directory', repr('DIR'))
# What to do if the prepared data are not those that a config describes.
ELSEWHERE = f'choose another directory ({_DIRECTORY}), or remove the folder to prepare it again'
RECORD = 'record'  # entry with the location of an example, if the source knows it


@dataclasses.dataclass(frozen=True)
class Origin:
  """What is known about the text before its examples are read.

  Attributes:
    corpus_fingerprint: fingerprint of the text or of its version; empty if unknown.
    sources: sha256 of the user's files, by path.
    dropped: number of examples omitted so far, by reason.
    first_dropped: the first omitted example, by reason.
  """

  corpus_fingerprint: str = ''
  sources: dict[str, str] = dataclasses.field(default_factory=dict)
  dropped: dict[str, int] = dataclasses.field(default_factory=dict)
  first_dropped: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Manifest:
  """The description of a prepared folder.

  Attributes:
    config: the DataConfig used for preparation.
    features: `inputs` and `targets`, or only `targets` if the records are windows of running text.
    tasks: the tasks of a mixture, or the task itself, by name: its `rate`, its records by split (`examples`), the
      number of packed training examples (`packed`), and the `objective` if its records are windows of running text
      and those of other tasks are not. In each split, records are grouped by task, in this order.
    examples: records by split: examples, or packs of examples if the training split is packed.
    tokens: tokens by split and feature, without ends of sequence except those within windows and packs.
    packed: for a packed training split, `examples`, `packs`, `padding_before` and `padding_after`: the shares of
      padding with one example per row and with one pack per row; otherwise empty.
    shards: file sizes in bytes by file name, by split.
    checksums: sha256 of each shard and of the token counts.
    vocabulary_size, sentinels, vocabulary_fingerprint: properties of the tokenizer.
    corpus_fingerprint, sources: properties of the text before tokenization, as in `Origin`.
    longest: the number of tokens to which a stored feature was cut.
    dropped: number of examples omitted or cut, by reason.
    first_dropped: the first such example, by reason.
    fingerprint: sha256 of all records in order and of the vocabulary.
    scoring: the fields of `Scoring`, by name, for registered tasks with a non-default scoring.
  """

  config: DataConfig
  features: list[str]
  tasks: dict[str, dict[str, Any]]
  examples: dict[str, int]
  tokens: dict[str, dict[str, int]]
  packed: dict[str, int | float]
  shards: dict[str, dict[str, int]]
  checksums: dict[str, str]
  vocabulary_size: int
  sentinels: int
  vocabulary_fingerprint: str
  corpus_fingerprint: str
  sources: dict[str, str]
  longest: int
  dropped: dict[str, int]
  first_dropped: dict[str, str]
  fingerprint: str
  scoring: dict[str, dict[str, bool]] = dataclasses.field(default_factory=dict)

  @property
  def is_text(self) -> bool:
    """Whether all records are windows of running text."""
    return 'inputs' not in self.features

  @property
  def objectives(self) -> list[ObjectiveConfig | None]:
    """The objective of each task, as in `tasks`."""
    found = [task['objective'] for task in self.tasks.values()]
    return [None if values is None else config_lib.from_dict(values) for values in found]

  def scoring_of(self, task: str) -> Scoring:
    """Returns the scoring of a registered task; the default if nothing else is known."""
    return Scoring(**self.scoring.get(task, {}))

  def write(self, folder: Path) -> None:
    values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    if not self.scoring:  # an entry unknown to earlier releases
      del values['scoring']
    values = {'format': FORMAT, 'task': self.config.task} | values | {'config': config_lib.to_dict(self.config)}
    (folder / MANIFEST).write_text(json.dumps(values, indent=2) + '\n', encoding='utf-8')


def folder_of(config: DataConfig) -> Path:
  """Returns the folder or address of the prepared data."""
  return path_of(config.directory) / config.task


def read_manifest(config: DataConfig) -> Manifest:
  """Reads the manifest of the data that a config names.

  Raises:
    UserError: if it is missing or damaged, or the data have another format or configuration.
  """
  path = folder_of(config) / MANIFEST
  try:
    values = json.loads(path.read_text(encoding='utf-8'))
    written = values.pop('format')
    values.pop('task')
  except FileNotFoundError as error:
    where = 'a folder without manifest.json' if path.parent.exists() else 'no such folder'
    raise UserError(
      f'{path.parent}: expected the prepared data of {config.task}, found {where}; prepare them with `terraformer '
      f'prepare` and the configuration of the run, or say where they are with {_DIRECTORY}'
    ) from error
  except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
    raise UserError(f'{path}: not a valid manifest of prepared data; prepare it again') from error
  if isinstance(written, int) and written > FORMAT:
    raise UserError(newer(path, 'prepared data of format', FORMAT, written))
  if written not in _READ:
    raise UserError(f'{path}: expected prepared data of format {FORMAT}, found format {written!r}; prepare it again')
  try:
    manifest = Manifest(**values | {'config': config_lib.from_dict(values['config'])})
  except (KeyError, TypeError, AttributeError) as error:
    raise UserError(f'{path}: the manifest has missing or unknown entries; prepare the data again') from error
  _require_types(manifest, path)
  _require_same(manifest, config, path.parent)
  return manifest


def _require_types(manifest: Manifest, path: Path) -> None:
  for field in dataclasses.fields(manifest):
    kind, value = typing.get_origin(field.type) or field.type, getattr(manifest, field.name)
    if not isinstance(value, kind):
      raise UserError(f'{path}: expected {kind.__name__} in the entry {field.name!r}, found {value!r:.80}')
  for name, kind in (('examples', int), ('shards', dict)):
    for split in SPLITS:
      value = getattr(manifest, name).get(split)
      if type(value) is not kind:
        raise UserError(f'{path}: expected {kind.__name__} in the entry {name!r} of {split}, found {value!r:.80}')
  for field in dataclasses.fields(manifest):
    if (wrong := _first_unlike(field.type, getattr(manifest, field.name))) is not None:
      raise UserError(f'{path}: expected the entry {field.name!r} as it was written, found {wrong[0]!r:.80} in it')
  for task in manifest.tasks.values():
    if not _is_task(task):
      raise UserError(f'{path}: expected a rate, counts and an objective of every task, found {task!r:.80}')
  known = {field.name for field in dataclasses.fields(Scoring)}
  for task, scoring in manifest.scoring.items():
    if not scoring.keys() <= known:
      raise UserError(f'{path}: expected {sorted(known)} in the scoring of {task!r:.80}, found {sorted(scoring)!r:.80}')
  if manifest.examples.keys() != {*SPLITS} or manifest.shards.keys() != {*SPLITS}:
    raise UserError(f'{path}: expected the splits {", ".join(SPLITS)}, found {sorted(manifest.examples)}')
  for name in (name for shards in manifest.shards.values() for name in shards):
    if Path(name).name != name or '\0' in name:
      raise UserError(f"{path}: the entry 'shards' must name files in the same folder, found {name!r:.80}")
  for split, count in manifest.examples.items():
    found = sum(task['examples'][split] for task in manifest.tasks.values())
    if found != count:
      raise UserError(f'{path}: expected {count} examples in the tasks of the split {split}, found {found}')


def _first_unlike(annotation: Any, value: Any) -> tuple[Any] | None:
  """Returns a tuple with the first value in an entry that does not match its annotation; None if all match.

  Every number is a nonnegative count.
  """
  origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
  if annotation is Any:
    return None
  if origin in (dict, list):
    if not isinstance(value, origin):
      return (value,)
    parts = value.values() if origin is dict else value
    return next((wrong for part in parts if (wrong := _first_unlike(arguments[-1], part)) is not None), None)
  options = arguments or (annotation,)
  is_like = type(value) in options and (type(value) not in (int, float) or 0 <= value < _MOST)
  return None if is_like else (value,)


def _is_task(task: dict[str, Any]) -> bool:
  """Whether an entry of a manifest's `tasks` has the form that `Manifest` describes."""
  return (
    task.keys() == {'rate', 'examples', 'packed', 'objective'}
    and type(task['rate']) in (int, float)
    and 0 < task['rate'] < _MOST
    and _first_unlike(dict[str, int], task['examples']) is None
    and task['examples'].keys() == {*SPLITS}
    and _first_unlike(int, task['packed']) is None
  )


def _require_same(manifest: Manifest, config: DataConfig, folder: Path) -> None:
  """Rejects data of another configuration; settings that only affect reading may differ.

  Those are the lengths of pairs that are not packed, and for running text every setting that does not change its
  windows.
  """
  free = ['directory:', *(f'source.{name}:' for name in config.source.located_by)]
  if config.tokenizer.path and manifest.config.tokenizer.path:  # the fingerprint identifies it at any path
    free.append('tokenizer.path:')
  has_windows = manifest.is_text or any(manifest.objectives)
  if manifest.is_text:
    is_as_stored = _windows(config, manifest) == _windows(manifest.config, manifest)
  else:
    is_as_stored = not manifest.packed and not has_windows
  if is_as_stored:
    free += ['inputs_length:', 'targets_length:', 'objective', 'inputs_eos:']
  changed = config_lib.differences(manifest.config, config)
  changed = [change for change in changed if not f'{change[0]}:'.startswith(tuple(free))]
  if changed:
    config.source.require_text()
    name, old, new = changed[0]
    raise UserError(f'{folder}: the data were prepared with data.{name} = {old}, not {new}; {ELSEWHERE}')
  if config.objective and not has_windows:
    found = type(config.objective).__name__
    raise UserError(f'DataConfig.objective: expected None for {config.task}, a task of pairs, found {found}')
  wanted = max(config.inputs_length, config.targets_length)
  if wanted > manifest.longest and manifest.dropped.get('features cut', 0):
    raise UserError(
      f'{folder}: features are cut to {manifest.longest} tokens, but {wanted} are needed; prepare the data again'
    )


def _windows(config: DataConfig, manifest: Manifest) -> list[tuple[int, bool]]:
  """Returns, for each task of text, the window length and whether ends of sequence separate documents."""
  configs = [config.with_objective(objective) for objective in manifest.objectives]
  return [(one.window_length, one.text_objective.separates) for one in configs]


def pack(tokens: dict[str, np.ndarray], texts: dict[str, str]) -> bytes:
  """Packs a record: tokens as little-endian int32 without end of sequence, and texts as `{feature}_pretokenized`."""
  record: dict[str, Any] = {name: np.asarray(ids, '<i4').tobytes() for name, ids in tokens.items()}
  return msgpack.packb(record | {f'{name}_pretokenized': text for name, text in texts.items()})


def unpack(record: bytes) -> dict[str, Any]:
  """Unpacks a record: tokens int32[length] by feature, and texts under their stored names."""
  return {
    name: np.frombuffer(value, '<i4') if isinstance(value, bytes) else value
    for name, value in msgpack.unpackb(record).items()
  }


def write_array(path: Path, array: np.ndarray) -> None:
  """Writes an array as `.npy`, and fails on a full disk, which `np.save` would not report."""
  data = io.BytesIO()
  np.save(data, array)
  path.write_bytes(data.getvalue())


def sha256_of(path: Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
