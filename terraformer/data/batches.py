"""Batches of prepared data: each is a function of its step, so the step is the whole state of the input.

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

_MOST_COUNTED = 2**44  # occurrences of a token, so that their sums fit into 64-bit integers

_ORDER_SEED = 0  # for the order of held-out examples and the points where their windows are split


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
      raise UserError(f'{folder / store.VOCABULARY}: does not match the manifest; prepare the data again')
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
  """How to read the records of a task: whether they are windows of running text, and how to arrange one."""

  is_text: bool
  arrange: Arrange


def _unigram_counts(path: Path, manifest: Manifest) -> np.ndarray:
  try:
    data = path.read_bytes()
  except OSError as error:
    raise UserError(f'{path}: cannot read the token counts; prepare the data again') from error
  if hashlib.sha256(data).hexdigest() != manifest.checksums.get(path.name):
    raise UserError(f'{path}: does not match the checksum in the manifest; prepare the data again')
  shape = len(manifest.tasks), manifest.vocabulary_size
  try:
    with io.BytesIO(data) as file:
      np.lib.format.read_magic(file)
      found = np.lib.format.read_array_header_1_0(file)
      # Check this before reading: numpy allocates memory for as many numbers as the header claims.
      if found != (shape, False, np.int64) or len(data) - file.tell() != 8 * math.prod(shape):
        raise ValueError('a different shape or type')
    counts_KxV = np.load(io.BytesIO(data))
  except Exception as error:  # numpy fails in many ways on a header that it cannot parse
    raise UserError(f'{path}: expected counts of tokens, int64{list(shape)}, found {error}') from error
  if manifest.sentinels > manifest.vocabulary_size or counts_KxV.min() < 0 or counts_KxV.max() > _MOST_COUNTED:
    raise UserError(f'{path}: contains invalid token counts; prepare the data again')
  return counts_KxV


class Prepared:
  """Prepared data, open for reading.

  Attributes:
    manifest: the description of the folder.
    tokenizer: the tokenizer of the data.
    unigram_counts: how often each id occurs in the training targets, plus one so that no probability is zero, int64[V].
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
    """The sha256 of all records and the vocabulary."""
    return self.manifest.fingerprint

  def size(self, split: str) -> int:
    """Returns the number of records in a split: examples, or packs of examples."""
    return self.manifest.examples[split]

  def train_batches(self, batch_size: int, seed: int) -> 'TrainBatches':
    """Returns endless shuffled batches of the training split; see `TrainBatches`."""
    arrange = self._packed if self._config.packing else functools.partial(self._arranged, 'train')
    shares = []
    for task in self.manifest.tasks.values():
      records = task['examples']['train']
      # A packed record counts once for each of its examples.
      shares.append((records, task['rate'] * records / (task['packed'] or records)))
    return TrainBatches(self._source('train'), arrange, batch_size, seed, shares)

  def unigram_losses(self, targets: np.ndarray) -> np.ndarray:
    """Returns -log p, in nats, of each non-padding token of `targets` under the token frequencies in training."""
    counts_V = self.unigram_counts
    return np.log(counts_V.sum()) - np.log(counts_V[targets[targets != PAD_ID]])

  def eval_batches(
    self, split: str, batch_size: int, max_examples: int | None = None, rows: Sequence[int] | None = None
  ) -> Iterator[Batch]:
    """Yields batches of a split in a fixed shuffled order, the same in every call, so the first few are a fair sample.

    The last batch is padded with examples of zeros whose index is -1.

    Args:
      split: the split to read.
      batch_size: examples per batch.
      max_examples: the most examples to read; None for the whole split.
      rows: which rows of each batch to return; None for all.

    Raises:
      UserError: if the split is empty.
    """
    return self._in_batches(split, self._order(split)[:max_examples], batch_size, rows)

  def eval_batches_twice(
    self, split: str, batch_size: int, max_examples: int | None = None, rows: Sequence[int] | None = None
  ) -> Iterator[tuple[Batch, Batch | None]]:
    """Yields each batch of `eval_batches` and the same batch with shuffled sources, from other examples of the task.

    Each target gets the source of the previous example of its task in the order of `eval_batches`, and the first gets
    the source of the last. This does not depend on the batch size, even if that is 1. The second batch is None if
    there are no sources or no source would change. The arguments and errors are those of `eval_batches`.
    """
    order = self._order(split)[:max_examples]
    others, batches = self._others(split, order), self._in_batches(split, order, batch_size, rows)
    if not self._config.inputs_length or np.array_equal(order, others):
      return ((batch, None) for batch in batches)
    beside = self._in_batches(split, others, batch_size, rows)
    return ((batch, batch | {'inputs': other['inputs']}) for batch, other in zip(batches, beside, strict=True))

  def _others(self, split: str, order: np.ndarray) -> np.ndarray:
    """Returns, for each example, the previous example of its task in this order; for the first, the last."""
    others, tasks = order.copy(), np.searchsorted(self._ends[split], order, side='right')
    for task in np.unique(tasks):
      others[tasks == task] = np.roll(order[tasks == task], 1)
    return others

  def _in_batches(self, split: str, order: np.ndarray, batch_size: int, rows: Sequence[int] | None) -> Iterator[Batch]:
    """Yields batches of the examples with these numbers, as `eval_batches` does."""
    source = self._source(split)
    empty = {name: np.zeros(length, np.int32) for name, length in self._config.lengths.items()}
    empty |= {'index': np.int64(-1)}
    for start in range(0, len(order), batch_size):
      places = [start + row for row in (range(batch_size) if rows is None else rows)]
      yield _stack([self._held_out(split, source[int(order[at])]) if at < len(order) else empty for at in places])

  def eval_texts(self, split: str, n: int) -> list[tuple[str, str]]:
    """Returns the uncut (inputs, targets) texts of the first `n` examples of `eval_batches`.

    For running text, these are decoded from the inputs and targets of the window.
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
    """Returns the two halves of the targets of the first `n` examples of `eval_batches`, as texts."""
    pairs = []
    for index in self._order(split)[:n]:
      targets = self._held_out(split, self._source(split)[int(index)])['targets']
      targets = targets[targets != PAD_ID]
      middle = len(targets) // 2
      pairs.append((self._text(targets[:middle]), self._text(targets[middle:])))
    return pairs

  def eval_tasks(self, split: str, n: int) -> list[str]:
    """Returns the task names of the first `n` examples of `eval_batches`."""
    names, numbers = list(self.manifest.tasks), np.searchsorted(self._ends[split], self._order(split)[:n], side='right')
    return [names[number] for number in numbers]

  def _text(self, ids: np.ndarray) -> str:
    """Returns the text of ids in which end-of-sequence ids separate documents."""
    parts = np.split(ids, np.flatnonzero(ids == EOS_ID))
    return '\n\n'.join(text for part in parts if (text := self.tokenizer.decode(part[part != EOS_ID])))

  def _source(self, split: str) -> 'Records':
    if not self.size(split):
      raise UserError(f'{self._folder}: the split {split} has no examples')
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
  """Training batches by number: each record occurs once per epoch, and each epoch has a new order.

  The tasks of a mixture are sampled at their rates, each in its own epochs. A batch does not depend on which process
  reads it, or on which rows that process reads.

  Args:
    source: the records, grouped by task.
    arrange: makes a batch row from a record and a random number generator.
    batch_size: rows per batch.
    seed: seed for the order and for the generators.
    shares: the number of records of each task, and the rate at which they are sampled relative to other tasks.
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
    # The same pipeline over bare numbers gives the same order without reading any record.
    self._order = _drawn(grain.MapDataset.range(len(source)), shares, seed)

  def batch(self, number: int, rows: Sequence[int] | None = None) -> Batch:
    """Returns a batch or some of its rows: inputs int32[B, S], targets int32[B, T], index int64[B] (record numbers).

    Packed data add inputs_segments int32[B, S] and targets_segments int32[B, T]: the number of each token's example in
    its row, from 1; 0 for padding.
    """
    rows = range(self._batch_size) if rows is None else rows
    return _stack([self._examples[number * self._batch_size + int(row)] for row in rows])

  def ids(self, number: int) -> np.ndarray:
    """Returns the `index` of all rows of a batch, int64[B]."""
    return np.array([self._order[number * self._batch_size + row] for row in range(self._batch_size)], np.int64)


def _drawn(records: grain.MapDataset, shares: Sequence[tuple[int, float]], seed: int) -> grain.MapDataset:
  """Returns endless records: each task in shuffled epochs, and the tasks interleaved at their rates."""
  tasks, start = [], 0
  for number, (count, _) in enumerate(shares):
    # With one seed, tasks of equal size would have the same order, and tasks of one source would meet in every batch.
    of_task = (seed + number) % (1 << 32)
    tasks.append(records[start : start + count].seed(of_task).shuffle().repeat(None))
    start += count
  return grain.MapDataset.mix(tasks, [rate for _, rate in shares]) if len(tasks) > 1 else tasks[0]


class Records:
  """Records of several shards by index, as a grain random access source; each record gets its `index`."""

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
    """Returns an error that names the shard and record that cannot be read, or the shard that cannot be opened."""
    found = first_line(error)
    for path in self._paths:
      try:
        length = len(self._open(path))
      except RuntimeError:
        return UserError(f'{path}: cannot open the shard: {found}; prepare the data again')
      if index is not None and index < length:
        return UserError(f'{path}, record {index}: the record is damaged: {found}; prepare the data again')
      index = None if index is None else index - length
    return UserError(f'{self._paths[0].parent}: cannot read the records: {found}; prepare the data again')

  def __repr__(self) -> str:
    return f'Records({self._name})'


def _stack(rows: list[dict[str, np.ndarray]]) -> Batch:
  return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def prefetch(batch_at: Callable[[int], Any], start: int, stop: int, ahead: int = 2) -> Generator[Any]:
  """Yields `batch_at(step)` for start <= step < stop, computed up to `ahead` steps early in one background thread.

  An exception from `batch_at` is raised when its step is due; closing the generator stops the thread.
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
