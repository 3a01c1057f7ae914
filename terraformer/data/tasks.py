"""Adapts sources to seqio, and reads seqio tasks and mixtures: their components and examples. Imports TensorFlow."""

import contextlib
import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf

from terraformer.config import UserError, first_line
from terraformer.data import sentinels
from terraformer.data.scoring import Scoring
from terraformer.data.source import Source
from terraformer.data.store import RECORD, Origin
from terraformer.data.tokenizer import EOS_ID, PAD_ID, Tokenizer
from terraformer.paths import printable

_AT_ONCE = 256  # examples per call, because each transfer between TensorFlow and Python is slow


class Texts(seqio.DataSource):
  """Wraps any source for seqio; the source divides its examples itself."""

  def __init__(self, source: Source):
    super().__init__(source.splits)
    self.source = source

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return True

  def list_shards(self, split: str) -> list[str]:
    return [split]

  def num_input_examples(self, split: str) -> int | None:
    return self.source.count(split)

  def get_dataset(self, split='train', shuffle=True, seed=None, shard_info=None, **unused) -> tf.data.Dataset:
    index, count = (shard_info.index, shard_info.num_shards) if shard_info else (0, 1)
    fields = [*self.source.features, *([RECORD] if self.source.tells_where else [])]
    signature = {name: tf.TensorSpec((None,), tf.string) for name in fields}

    def chunks() -> Iterator[dict[str, list[str]]]:
      examples = self.source.read(split, index, count)
      while chunk := list(itertools.islice(examples, _AT_ONCE)):
        rows = {name: [example[name] for example in chunk] for name in fields}
        # TensorFlow only accepts UTF-8, but file names may not be UTF-8.
        yield rows | ({RECORD: [printable(where) for where in rows[RECORD]]} if RECORD in rows else {})

    return tf.data.Dataset.from_generator(chunks, output_signature=signature).unbatch()


def scoring_of(source: seqio.DataSource) -> Scoring:
  """Returns the scoring of a task that reads a source: its own for one of our sources, otherwise the default."""
  return source.source.scoring if isinstance(source, Texts) else Scoring()


def tfds_source(dataset: str, data_dir: str) -> seqio.TfdsDataSource:
  """Returns a data set of TensorFlow Datasets without accessing it; an empty folder means TFDS's default."""
  return seqio.TfdsDataSource(dataset, data_dir or None)


def build_tfds(source: seqio.TfdsDataSource, dataset: str, where: str) -> None:
  """Has TFDS download and build its data if they are missing.

  Raises:
    UserError: if TFDS fails.
  """
  try:
    source.tfds_dataset.builder.download_and_prepare()
  except Exception as error:  # downloading and building fail in many ways
    found = first_line(error)
    raise UserError(f'{dataset}: TFDS cannot find or build it in {where}: {found:.300}') from error


def origin_of(source: seqio.DataSource) -> Origin:
  """Returns what is known about a source's text before reading it: nothing for a user's seqio source.

  Raises:
    UserError: if it cannot be read.
  """
  if isinstance(source, seqio.TfdsDataSource):
    with in_a_sentence('TensorFlow Datasets'):
      info = source.tfds_dataset.info
      sizes = {name: (split.num_examples, split.num_bytes) for name, split in info.splits.items()}
    return Origin(f'{info.full_name} {sizes}')
  return source.source.origin() if isinstance(source, Texts) else Origin()


def training_texts(source: seqio.DataSource, fields: Mapping[str, str]) -> Iterator[str]:
  """Yields the training text of a source, example by example.

  Raises:
    UserError: if it cannot be read.
  """
  with in_a_sentence('training text'):
    for example in source.get_dataset(split='train', shuffle=False).as_numpy_iterator():
      yield '\n'.join(example[field].decode('utf-8') for field in fields.values())


@dataclasses.dataclass(frozen=True)
class Tokenized:
  """One example of a task.

  Attributes:
    tokens: ids by feature, without end of sequence.
    texts: text by feature, if the task kept it.
    record: location (file and line) if the source gives it; otherwise empty.
  """

  tokens: dict[str, np.ndarray]
  texts: dict[str, str]
  record: str = ''


def find(name: str) -> seqio.Task | seqio.Mixture:
  """Finds a task or mixture that the user registered.

  Raises:
    UserError: if no task has this name, or its features are not `targets` with or without `inputs`.
  """
  try:
    task = seqio.get_mixture_or_task(name)
  except ValueError as error:
    raise UserError(
      f'SeqioTaskConfig.name: no seqio task or mixture is registered as {name!r}; '
      'register it in a module and pass that as --module'
    ) from error
  if set(task.output_features) not in ({'inputs', 'targets'}, {'targets'}):
    found = sorted(task.output_features)
    raise UserError(f'task {name}: expected the features inputs and targets, or targets alone, found {found}')
  return task


def vocabulary_of(task: seqio.Task | seqio.Mixture) -> Tokenizer:
  """Returns the tokenizer of a user's task, or the one that all tasks of a mixture share.

  Raises:
    UserError: if their features do not share one sentencepiece vocabulary.
  """
  tasks = task.tasks if isinstance(task, seqio.Mixture) else [task]
  vocabularies = [feature.vocabulary for one in tasks for feature in one.output_features.values()]
  for vocabulary in vocabularies:
    if not isinstance(vocabulary, seqio.SentencePieceVocabulary):
      found = type(vocabulary).__name__
      raise UserError(f'task {task.name}: expected a seqio.SentencePieceVocabulary, found {found}')
  if any(vocabulary != vocabularies[0] for vocabulary in vocabularies):
    raise UserError(f'task {task.name}: all features must have the same vocabulary')
  path = vocabularies[0].sentencepiece_model_file
  with in_a_sentence(f'task {task.name}, vocabulary {path}'), tf.io.gfile.GFile(path, 'rb') as file:
    count = vocabularies[0].extra_ids
    found = Tokenizer.from_bytes(file.read(), count)
    if found.sentinel_ids != sentinels.ids_of(vocabularies[0].tokenizer, count):  # seqio reversed them
      found = Tokenizer.from_bytes(vocabularies[0].sp_model, count)
    return found


def weighted(task: seqio.Task | seqio.Mixture) -> list[tuple[seqio.Task, float]]:
  """Returns the tasks of a mixture, including nested mixtures, with their rates; a single task has the rate 1.

  Raises:
    UserError: if a rate is not a positive number or cannot be computed.
  """
  if isinstance(task, seqio.Task):
    return [(task, 1.0)]
  found = []
  for one in task.tasks:
    where = f'mixture {task.name}, rate of {one.name}'
    try:
      rate = float(task.get_rate(one))
    except Exception as error:  # rates are the user's functions
      if one.num_input_examples('train') is None:
        raise UserError(f'{where}: the size of the source is unknown; give the rate as a number') from error
      raise UserError(f'{where}: expected a number, found {type(error).__name__}: {error}') from error
    if not 0 < rate < math.inf:
      raise UserError(f'{where}: expected a positive number, found {rate}')
    found.append((one, rate))
  return found


def run(task: seqio.Task, split: str, part: int = 0, parts: int = 1) -> Iterator[Tokenized]:
  """Yields the examples of a part of a split once each, in the task's order.

  The source is divided by files if it has enough, otherwise by examples. Held-out splits are small and divided only by
  files.

  Raises:
    UserError: if the source cannot be read.
  """
  with in_a_sentence(f'task {task.name}, {split}, part {part}'):
    if split != 'train':
      parts = min(parts, len(task.source.list_shards(split)))
    if part >= parts:
      return
    dataset = task.get_dataset(
      sequence_length=None,
      split=split,
      shuffle=False,
      seed=0,
      shard_info=seqio.ShardInfo(part, parts) if parts > 1 else None,
      num_epochs=1,
      try_in_mem_cache=False,
    )
    yield from _tokenized(dataset, sorted(task.output_features))


@contextlib.contextmanager
def in_a_sentence(where: str) -> Iterator[None]:
  """Turns TensorFlow's exceptions into a UserError; restores a UserError that our code raised inside TensorFlow."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # the user's preprocessors and readers may raise anything
    message = getattr(error, 'message', None) or str(error)
    if ours := re.search(r'UserError: (.+)', message):
      raise UserError(ours[1].strip()) from error
    # TensorFlow's messages begin with the graph node, followed by the Python error and its stack.
    message = ' '.join(message.split('Traceback (most recent call last)')[0].split())
    message = re.split(r'Iterator::\S+: ', message)[-1]
    pythons = re.search(r'\b\w+Error: .+', message)
    found = pythons[0] if pythons else f'{type(error).__name__}: {message}'
    raise UserError(f'{where}: cannot read the source: {found:.300}') from error


def _tokenized(dataset: tf.data.Dataset, features: list[str]) -> Iterator[Tokenized]:
  texts = [f'{name}_pretokenized' for name in features]
  kinds = dataset.element_spec
  texts = [name for name in texts if name in kinds and kinds[name].dtype == tf.string and kinds[name].shape.rank == 0]
  records = [RECORD] if RECORD in kinds else []
  kept = features + texts + records
  dataset = dataset.map(lambda example: {name: example[name] for name in kept}).ragged_batch(_AT_ONCE)
  for batch in dataset.prefetch(2):
    tokens = {name: _rows(batch[name]) for name in features}
    strings = {name.removesuffix('_pretokenized'): batch[name].numpy() for name in texts}
    places = batch[RECORD].numpy() if records else None
    for row in range(len(tokens['targets'])):
      yield Tokenized(
        {name: _without_end(rows[row]) for name, rows in tokens.items()},
        {name: rows[row].decode('utf-8') for name, rows in strings.items()},
        places[row].decode('utf-8') if records else '',
      )


def _rows(ids: tf.Tensor | tf.RaggedTensor) -> Sequence[np.ndarray]:
  if isinstance(ids, tf.RaggedTensor):
    return np.split(ids.flat_values.numpy(), ids.row_splits.numpy()[1:-1])
  return ids.numpy()


def _without_end(ids: np.ndarray) -> np.ndarray:
  """Returns the ids without trailing padding and end of sequence."""
  length = len(ids)
  while length and ids[length - 1] in (PAD_ID, EOS_ID):
    length -= 1
  return np.asarray(ids[:length], np.int32)
