"""Where the text of this library's tasks comes from, as seqio's sources. Imports TensorFlow."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import seqio
import tensorflow as tf

from terraformer.config import DataConfig, UserError
from terraformer.data import digits, local_files, local_folder, own_texts, store
from terraformer.data.own_texts import Examples
from terraformer.data.store import FEATURES, RECORD, Origin
from terraformer.data.tasks import in_a_sentence
from terraformer.paths import printable

_TFDS = {
  **dict.fromkeys(store.C4_TASKS, 'c4/en:3.1.0'),
  'arxiv_summarization': 'scientific_papers/arxiv:1.1.1',
  'pubmed_summarization': 'scientific_papers/pubmed:1.1.1',
}
_TEXT_BYTES = 20_000_000  # that a vocabulary is trained on at most
_AT_ONCE = 256  # texts: TensorFlow takes long to ask Python for one


class _Texts(seqio.DataSource):
  """A source of texts that a generator function yields, divided by the generator itself.

  Args:
    splits: that it has.
    features: of every text, `record` included where it tells where it stands.
    read: the texts of (split, part, parts).
    count: the texts of a split, None where nobody knows.
    origin: what is known of them before they are read.
  """

  def __init__(
    self,
    splits: Sequence[str],
    features: Sequence[str],
    read: Callable[[str, int, int], Iterator[dict[str, str]]],
    count: Callable[[str], int | None],
    origin: Callable[[], Origin] = Origin,
  ):
    super().__init__(splits)
    self.features, self.origin, self._read, self._count = features, origin, read, count

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return True

  def list_shards(self, split: str) -> list[str]:
    return [split]

  def num_input_examples(self, split: str) -> int | None:
    return self._count(split)

  def get_dataset(self, split='train', shuffle=True, seed=None, shard_info=None, **unused) -> tf.data.Dataset:
    index, count = (shard_info.index, shard_info.num_shards) if shard_info else (0, 1)
    signature = {name: tf.TensorSpec((None,), tf.string) for name in self.features}

    def chunks() -> Iterator[dict[str, list[str]]]:
      examples = self._read(split, index, count)
      while chunk := list(itertools.islice(examples, _AT_ONCE)):
        rows = {name: [example[name] for example in chunk] for name in self.features}
        # TensorFlow takes UTF-8 alone, which names of files need not be.
        yield rows | ({RECORD: [printable(where) for where in rows[RECORD]]} if RECORD in rows else {})

    return tf.data.Dataset.from_generator(chunks, output_signature=signature).unbatch()


def source_of(config: DataConfig, examples: Examples | None = None) -> tuple[seqio.DataSource, dict[str, str]]:
  """Where a task's text comes from, and which field of it is which feature; `examples` where they have been read."""
  if config.task in _TFDS:
    source = seqio.TfdsDataSource(_TFDS[config.task], config.tfds_directory or None)
    fields = {'targets': 'text'} if config.task in store.C4_TASKS else {'inputs': 'article', 'targets': 'abstract'}
    return source, fields
  if config.task in store.DIGIT_TASKS:
    return _digits(config), _as_named(FEATURES)
  if config.task == 'local_folder':
    return _folder(config), _as_named(local_files.fields_of(config.local_folder))
  return _held(config, examples), _as_named(own_texts.features(config))


def _as_named(features: Sequence[str]) -> dict[str, str]:
  return {name: name for name in features}


def _digits(config: DataConfig) -> _Texts:
  count = functools.partial(digits.count, config.digits)

  def read(split, part, parts):
    for index in range(part, count(split), parts):
      yield digits.example(config.task, config.digits, split, index)

  return _Texts(store.SPLITS, FEATURES, read, count)


def _folder(config: DataConfig) -> _Texts:
  found = local_folder.files_of(config.local_folder)
  features = [*local_files.fields_of(config.local_folder), RECORD]

  def read(split, part, parts):
    return local_folder.read(config.local_folder, found.of_split[split], part, parts)

  def origin():
    dropped = {reason: len(paths) for reason, paths in found.passed_over.items()}
    first = {reason: str(paths[0]) for reason, paths in found.passed_over.items() if paths}
    return Origin(local_folder.version_of(config.local_folder), dropped=dropped, first_dropped=first)

  return _Texts(list(found.of_split), features, read, lambda split: None, origin)


def _held(config: DataConfig, examples: Examples | None) -> _Texts:
  once = functools.cache(lambda: (examples, Origin()) if examples else own_texts.read(config))

  def read(split, part, parts):
    return iter(once()[0][split][part::parts])

  features = [*own_texts.features(config), RECORD]
  return _Texts(store.SPLITS, features, read, lambda split: len(once()[0][split]), lambda: once()[1])


def checked(config: DataConfig, examples: Examples | None = None) -> tuple[seqio.DataSource, dict[str, str]]:
  """A source that is there; TFDS is asked for its data, which it builds where it knows how.

  Raises:
    UserError: if it is not.
  """
  source, fields = source_of(config, examples)
  if config.task in _TFDS:
    name, where = _TFDS[config.task], config.tfds_directory or 'its own folder (DataConfig.tfds_directory)'
    try:
      builder = source.tfds_dataset.builder
      builder.download_and_prepare()
    except Exception as error:  # downloading and building fail in many ways
      found = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
      raise UserError(f'{name}: expected TFDS to have or to build it in {where}, found {found:.300}') from error
  return source, fields


def origin_of(source: seqio.DataSource) -> Origin:
  """What is known of a source's text before it is read; nothing, of a source of the user's own.

  Raises:
    UserError: if it cannot be read.
  """
  if isinstance(source, seqio.TfdsDataSource):
    with in_a_sentence('TensorFlow Datasets'):
      info = source.tfds_dataset.info
      sizes = {name: (split.num_examples, split.num_bytes) for name, split in info.splits.items()}
    return Origin(f'{info.full_name} {sizes}')
  return source.origin() if isinstance(source, _Texts) else Origin()


def texts(config: DataConfig) -> Iterator[str]:
  """The beginning of a streamed task's training text, example by example: enough to train a vocabulary on."""
  source, fields = checked(config)
  read = 0
  with in_a_sentence(f'task {config.task}, train'):
    for example in source.get_dataset(split='train', shuffle=False).as_numpy_iterator():
      yield '\n'.join(example[field].decode('utf-8') for field in fields.values())
      read += sum(len(example[field]) for field in fields.values())
      if read > _TEXT_BYTES:
        return
