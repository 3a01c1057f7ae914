"""Batches of prepared data: every one is a function of its step, so the step is the whole state of the input.

Examples are read with grain and arranged by numpy; TensorFlow is not involved. Letters: B batch, S inputs' length,
T targets' length, K tasks of a mixture, V vocabulary.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import io
import json
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np

from terraformer.config import DataConfig, UserError, first_line
from terraformer.data import packing, store
from terraformer.data.addresses import is_address, reaching, size_of
from terraformer.data.objectives import Arrange, make_arrange, target_counts
from terraformer.data.store import Manifest
from terraformer.data.tokenizer import EOS_ID, PAD_ID, Tokenizer
from terraformer.paths import plain

Batch = dict[str, np.ndarray]

_MOST_COUNTED = 2**44  # occurrences of a token, so that their sums are whole numbers of 64 bits

_ORDER_SEED = 0  # of the order in which held-out examples are read, and of where their windows are split


def open_prepared(config: DataConfig) -> 'Prepared':
  """Opens `config.directory/config.task`.

  Raises:
    UserError: if it is missing, damaged, or prepared with another format, configuration or vocabulary.
  """
  with reaching(config.directory):
    manifest, folder = store.read_manifest(config), store.folder_of(config)
    for shards in manifest.shards.values():
      for name, size in shards.items():
        path = folder / name
        found = f'{size_of(path)} bytes' if path.exists() else 'no such file'
        if found != f'{size} bytes':
          raise UserError(f'{path}: expected {size} bytes, found {found}; prepare it again')
    counts_KxV = _unigram_counts(folder / store.UNIGRAMS, manifest)
    tokenizer = Tokenizer.open(folder / store.VOCABULARY, manifest.sentinels)
    if tokenizer.fingerprint != manifest.vocabulary_fingerprint or tokenizer.size != manifest.vocabulary_size:
      raise UserError(f'{folder / store.VOCABULARY}: expected the vocabulary of the manifest, found another')
  tasks, counts_V = [], np.ones(tokenizer.size, np.int64)
  for one, objective, of_task_V in zip(manifest.tasks.values(), manifest.objectives, counts_KxV, strict=True):
    own, is_text = config.with_objective(objective), manifest.is_text or objective is not None
    if is_text:
      own.text_objective.check_lengths(config.inputs_length, config.targets_length, tokenizer.sentinels)
      of_task_V = target_counts(own, of_task_V, one['examples']['train'], tokenizer.sentinel_ids)
    counts_V += of_task_V
    tasks.append(_Task(is_text, make_arrange(own, is_text, tokenizer.sentinel_ids)))
  return Prepared(config, manifest, tasks, tokenizer, counts_V, folder)


@dataclasses.dataclass(frozen=True)
class _Task:
  """How the records of a task are read: whether they are windows of running text, and what is made of one."""

  is_text: bool
  arrange: Arrange


def _unigram_counts(path: Path, manifest: Manifest) -> np.ndarray:
  try:
    data = path.read_bytes()
  except OSError as error:
    raise UserError(f'{path}: expected counts of tokens, found no readable file') from error
  if hashlib.sha256(data).hexdigest() != manifest.checksums.get(path.name):
    raise UserError(f'{path}: expected the counts of tokens of the manifest, found others; prepare it again')
  shape = len(manifest.tasks), manifest.vocabulary_size
  try:
    with io.BytesIO(data) as file:
      np.lib.format.read_magic(file)
      found = np.lib.format.read_array_header_1_0(file)
      # Before the numbers are read: memory is taken for as many as the file says that it has.
      if found != (shape, False, np.int64) or len(data) - file.tell() != 8 * math.prod(shape):
        raise ValueError('another shape or type')
    counts_KxV = np.load(io.BytesIO(data))
  except Exception as error:  # numpy fails in many ways at a header that it cannot parse
    raise UserError(f'{path}: expected counts of tokens, int64{list(shape)}, found {error}') from error
  if manifest.sentinels > manifest.vocabulary_size or counts_KxV.min() < 0 or counts_KxV.max() > _MOST_COUNTED:
    raise UserError(f'{path}: expected counts of the tokens of a vocabulary, found numbers that are none')
  return counts_KxV


class Prepared:
  """Prepared data, open for reading.

  Attributes:
    manifest: what was prepared.
    vocabulary: its tokens.
    unigram_counts: how often each id occurs in the training targets, plus one, so that none has no probability,
      int64[V].
  """

  def __init__(
    self,
    config: DataConfig,
    manifest: Manifest,
    tasks: Sequence[_Task],
    tokenizer: Tokenizer,
    unigrams: np.ndarray,
    folder: Path,
  ):
    self.manifest, self.tokenizer, self.unigram_counts = manifest, tokenizer, unigrams
    self._config, self._tasks, self._folder = config, tasks, folder
    counts = {split: [task['examples'][split] for task in manifest.tasks.values()] for split in store.SPLITS}
    self._ends = {split: np.cumsum(of_split) for split, of_split in counts.items()}
    self._records: dict[str, Records] = {}

  @property
  def fingerprint(self) -> str:
    """sha256 of all records and the vocabulary."""
    return self.manifest.fingerprint

  def size(self, split: str) -> int:
    """Records of a split: examples, or packs of them."""
    return self.manifest.examples[split]

  def train_batches(self, batch_size: int, seed: int) -> 'TrainBatches':
    """Endless shuffled batches of the training split; see `TrainBatches`."""
    arrange = self._packed if self._config.packing else functools.partial(self._arranged, 'train')
    shares = []
    for task in self.manifest.tasks.values():
      records = task['examples']['train']
      # A record of packs counts as many times as it has examples.
      shares.append((records, task['rate'] * records / (task['packed'] or records)))
    return TrainBatches(self._source('train'), arrange, batch_size, seed, shares)

  def unigram_losses(self, targets: np.ndarray) -> np.ndarray:
    """-log p, in nats, of each token of `targets` that is not padding, under the training targets' frequencies."""
    counts_V = self.unigram_counts
    return np.log(counts_V.sum()) - np.log(counts_V[targets[targets != PAD_ID]])

  def eval_batches(
    self, split: str, batch_size: int, max_examples: int | None = None, rows: Sequence[int] | None = None
  ) -> Iterator[Batch]:
    """Batches of a split in a fixed mixed order, the same at every call, so that the first few are a fair sample.

    The last batch is filled up with examples of zeros alone whose index is -1.

    Args:
      split: of the data.
      batch_size: examples of a batch.
      max_examples: that are read in all; None for the whole split.
      rows: of each batch; None for all.

    Raises:
      UserError: if the split is empty.
    """
    return self._in_batches(split, self._order(split)[:max_examples], batch_size, rows)

  def eval_batches_twice(
    self, split: str, batch_size: int, max_examples: int | None = None, rows: Sequence[int] | None = None
  ) -> Iterator[tuple[Batch, Batch | None]]:
    """Each of `eval_batches`, and the same with shuffled sources: each target has that of another example of its task.

    It is the source of the example before, in the order of `eval_batches`, and for the first that of the last: the same
    one whatever the size of a batch, even if that is 1. Where no example has another source, as without sources, None
    takes the place of the second. Arguments, and what is raised, are those of `eval_batches`.
    """
    order = self._order(split)[:max_examples]
    others, batches = self._others(split, order), self._in_batches(split, order, batch_size, rows)
    if not self._config.inputs_length or np.array_equal(order, others):
      return ((batch, None) for batch in batches)
    beside = self._in_batches(split, others, batch_size, rows)
    return ((batch, batch | {'inputs': other['inputs']}) for batch, other in zip(batches, beside, strict=True))

  def _others(self, split: str, order: np.ndarray) -> np.ndarray:
    """For each example the one of its task before it in this order, for the first the last."""
    others, tasks = order.copy(), np.searchsorted(self._ends[split], order, side='right')
    for task in np.unique(tasks):
      others[tasks == task] = np.roll(order[tasks == task], 1)
    return others

  def _in_batches(self, split: str, order: np.ndarray, batch_size: int, rows: Sequence[int] | None) -> Iterator[Batch]:
    """The examples of these numbers, as `eval_batches` has them."""
    source = self._source(split)
    empty = {name: np.zeros(length, np.int32) for name, length in self._config.lengths.items()}
    empty |= {'index': np.int64(-1)}
    for start in range(0, len(order), batch_size):
      places = [start + row for row in (range(batch_size) if rows is None else rows)]
      yield _stack([self._held_out(split, source[int(order[at])]) if at < len(order) else empty for at in places])

  def eval_texts(self, split: str, n: int) -> list[tuple[str, str]]:
    """The (inputs, targets) texts of the first `n` examples of `eval_batches`, not cut.

    Of running text they are decoded from the window's two parts.
    """
    texts = []
    for index in self._order(split)[:n]:
      record = self._source(split)[int(index)]
      tokens = self._held_out(split, record) if self._task(split, record).is_text else record
      pair = [record.get(f'{name}_pretokenized') for name in store.FEATURES]
      decoded = [
        text if text is not None else self._text(tokens[n]) for text, n in zip(pair, store.FEATURES, strict=True)
      ]
      texts.append(tuple(decoded))
    return texts

  def eval_halves(self, split: str, n: int) -> list[tuple[str, str]]:
    """The two halves of the targets of the first `n` examples of `eval_batches`, as texts."""
    pairs = []
    for index in self._order(split)[:n]:
      targets = self._held_out(split, self._source(split)[int(index)])['targets']
      targets = targets[targets != PAD_ID]
      middle = len(targets) // 2
      pairs.append((self._text(targets[:middle]), self._text(targets[middle:])))
    return pairs

  def eval_tasks(self, split: str, n: int) -> list[str]:
    """Of which task of a mixture the first `n` examples of `eval_batches` are."""
    names, numbers = list(self.manifest.tasks), np.searchsorted(self._ends[split], self._order(split)[:n], side='right')
    return [names[number] for number in numbers]

  def _text(self, ids: np.ndarray) -> str:
    """The text of ids in which ends of sequence separate documents."""
    parts = np.split(ids, np.flatnonzero(ids == EOS_ID))
    return '\n\n'.join(text for part in parts if (text := self.tokenizer.decode(part[part != EOS_ID])))

  def _source(self, split: str) -> 'Records':
    if not self.size(split):
      raise UserError(f'{self._folder}: expected examples in the split {split}, found none')
    if split not in self._records:
      records = Records([self._folder / name for name in self.manifest.shards[split]])
      if len(records) != self.size(split):
        raise UserError(
          f'{self._folder}: expected {self.size(split)} records in the split {split}, found {len(records)}'
        )
      self._records[split] = records
    return self._records[split]

  def _order(self, split: str) -> np.ndarray:
    self._source(split)
    return np.random.default_rng(_ORDER_SEED).permutation(self.size(split))

  def _held_out(self, split: str, record: dict[str, Any]) -> dict[str, np.ndarray]:
    return self._arranged(split, record, np.random.default_rng((_ORDER_SEED, int(record['index']))))

  def _task(self, split: str, record: dict[str, Any]) -> _Task:
    return self._tasks[int(np.searchsorted(self._ends[split], record['index'], side='right'))]

  def _arranged(self, split: str, record: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    inputs, targets = self._task(split, record).arrange(record, rng)
    return {'inputs': inputs, 'targets': targets, 'index': np.int64(record['index'])}

  def _packed(self, record: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return packing.rows(record, self._config.lengths) | {'index': np.int64(record['index'])}


class TrainBatches:
  """Training batches by number: each record once an epoch, every epoch in another order.

  The tasks of a mixture are drawn at their rates, each in epochs of its own. A batch is the same whoever reads it, in
  whole or in part.

  Args:
    source: the records, those of each task one after another.
    arrange: makes of a record, with a generator of numbers, the row of a batch.
    batch_size: rows.
    seed: of the order, and of the generators.
    shares: of each task the number of its records, and how often they are drawn beside those of the others.
  """

  def __init__(
    self,
    source: 'Records',
    arrange: Callable,
    batch_size: int,
    seed: int,
    shares: Sequence[tuple[int, float]],
  ):
    self._batch_size = batch_size
    self._examples = _drawn(grain.MapDataset.source(source), shares, seed).seed(seed).random_map(arrange)
    # The same steps over bare numbers draw the same order, without reading a record.
    self._order = _drawn(grain.MapDataset.range(len(source)), shares, seed)

  def batch(self, number: int, rows: Sequence[int] | None = None) -> Batch:
    """A batch, or some of its rows: inputs int32[B, S], targets int32[B, T], index int64[B] (the record's number).

    Of data that are packed also inputs_segments int32[B, S] and targets_segments int32[B, T]: of each token the number
    of its example in the row, from 1; 0 at padding.
    """
    rows = range(self._batch_size) if rows is None else rows
    return _stack([self._examples[number * self._batch_size + int(row)] for row in rows])

  def ids(self, number: int) -> np.ndarray:
    """The `index` of all rows of a batch, int64[B]."""
    return np.array([self._order[number * self._batch_size + row] for row in range(self._batch_size)], np.int64)


def _drawn(records: grain.MapDataset, shares: Sequence[tuple[int, float]], seed: int) -> grain.MapDataset:
  """Records without an end: of each task in shuffled epochs, the tasks in turn as their rates demand."""
  tasks, start = [], 0
  for number, (count, _) in enumerate(shares):
    # With one seed for all, tasks of one size would have one order, and those of one source meet in every batch.
    of_task = (seed + number) % (1 << 32)
    tasks.append(records[start : start + count].seed(of_task).shuffle().repeat(None))
    start += count
  return grain.MapDataset.mix(tasks, [rate for _, rate in shares]) if len(tasks) > 1 else tasks[0]


class Records:
  """Records of several shards by index, as grain's random access sources are; `index` is added to each."""

  def __init__(self, paths: list[Path]):
    self._paths = paths
    self._name = json.dumps([path.name for path in paths])
    try:
      self._source = self._open(*paths)
    except RuntimeError as error:
      raise self._damaged(None, error) from error

  @staticmethod
  def _open(*paths: Path) -> grain.sources.ArrayRecordDataSource:
    return grain.sources.ArrayRecordDataSource([str(path if is_address(path) else plain(path)) for path in paths])

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    try:
      record = store.unpack(self._source[index])
    except (RuntimeError, ValueError) as error:
      raise self._damaged(index, error) from error
    return record | {'index': index}

  def _damaged(self, index: int | None, error: Exception) -> UserError:
    """Says in which shard the record of this number cannot be read, or which shard cannot be opened."""
    found = first_line(error)
    for path in self._paths:
      try:
        length = len(self._open(path))
      except RuntimeError:
        return UserError(f'{path}: expected a shard of records, found {found}')
      if index is not None and index < length:
        return UserError(f'{path}, record {index}: expected a whole record, found {found}')
      index = None if index is None else index - length
    return UserError(f'{self._paths[0].parent}: expected records that can be read, found {found}')

  def __repr__(self) -> str:
    return f'Records({self._name})'


def _stack(rows: list[dict[str, np.ndarray]]) -> Batch:
  return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def prefetch(batch_at: Callable[[int], Any], start: int, stop: int, ahead: int = 2) -> Generator[Any]:
  """Yields `batch_at(step)` for start <= step < stop, computing up to `ahead` steps early in one background thread.

  An exception of `batch_at` is raised where its step is due; closing the generator stops the thread.
  """
  pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix='prefetch')
  pending = collections.deque()
  try:
    for step in range(start, stop):
      while len(pending) <= ahead and step + len(pending) < stop:
        pending.append(pool.submit(batch_at, step + len(pending)))
      yield pending.popleft().result()
  finally:
    pool.shutdown(wait=True, cancel_futures=True)
