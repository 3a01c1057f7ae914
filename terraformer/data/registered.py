"""This library's tasks under the names by which seqio finds them. Imports TensorFlow.

Importing this module registers them with T5's vocabulary of 32,000 ids and 100 sentinels, which is read when a task is
first used: `seqio.get_mixture_or_task('c4_span_corruption')`. `register_all` registers them with another.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import seqio
import tensorflow as tf

from terraformer.config import DataConfig, LMConfig, UserError
from terraformer.config.objectives import ObjectiveConfig
from terraformer.data import digits, local_folder, scores, store
from terraformer.data.objectives import make_arrange
from terraformer.data.tasks import RECORD, in_a_sentence

T5_VOCABULARY = 'gs://t5-data/vocabs/cc_all.32000/sentencepiece.model'
_TFDS = {
  **dict.fromkeys(store.C4_TASKS, 'c4/en:3.1.0'),
  'arxiv_summarization': 'scientific_papers/arxiv:1.1.1',
  'pubmed_summarization': 'scientific_papers/pubmed:1.1.1',
}
_T5_LENGTHS = {'inputs': 512, 'targets': 114}
_TEXT_BYTES = 20_000_000  # that a vocabulary is trained on at most
_AT_ONCE = 256  # texts: TensorFlow takes long to ask Python for one
_PAIRS = {'inputs': 'inputs', 'targets': 'targets'}


class _Texts(seqio.DataSource):
  """A source of texts that a generator function yields, divided by the generator itself."""

  def __init__(self, read: Callable[[str, int, int], Iterator[dict[str, str]]], features, counts: Mapping[str, int]):
    super().__init__(splits=counts, num_input_examples={s: n for s, n in counts.items() if n} or None)
    self._read, self.features = read, features

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return True

  def list_shards(self, split: str) -> list[str]:
    return [split]

  def num_input_examples(self, split: str) -> int | None:
    return (self._num_input_examples or {}).get(split)

  def get_dataset(self, split='train', shuffle=True, seed=None, shard_info=None, **unused) -> tf.data.Dataset:
    index, count = (shard_info.index, shard_info.num_shards) if shard_info else (0, 1)
    signature = {name: tf.TensorSpec((None,), tf.string) for name in self.features}

    def chunks() -> Iterator[dict[str, list[str]]]:
      examples = self._read(split, index, count)
      while chunk := list(itertools.islice(examples, _AT_ONCE)):
        yield {name: [example[name] for example in chunk] for name in self.features}

    return tf.data.Dataset.from_generator(chunks, output_signature=signature).unbatch()


def _source(config: DataConfig) -> tuple[seqio.DataSource, dict[str, str]]:
  """Where a task's text comes from, and which field of it is which feature."""
  if config.task in _TFDS:
    source = seqio.TfdsDataSource(_TFDS[config.task], config.tfds_directory or None)
    fields = {'targets': 'text'} if config.task in store.C4_TASKS else {'inputs': 'article', 'targets': 'abstract'}
    return source, fields
  if config.task in store.DIGIT_TASKS:

    def read(split, part, parts):
      for index in range(part, digits.count(config.digits, split), parts):
        yield digits.example(config.task, config.digits, split, index)

    return _Texts(read, _PAIRS, {split: digits.count(config.digits, split) for split in store.SPLITS}), _PAIRS
  folder = config.local_folder
  files = local_folder.files_of(folder)
  fields = _PAIRS if folder.inputs_field else {'targets': 'targets'}
  read = lambda split, part, parts: local_folder.read(folder, files[split], part, parts)  # noqa: E731
  return _Texts(read, [*fields, RECORD], dict.fromkeys(files, 0)), fields


def _checked_source(config: DataConfig) -> tuple[seqio.DataSource, dict[str, str]]:
  """A source that is there; TFDS is asked for its data, which it builds where it knows how.

  Raises:
    UserError: if it is not.
  """
  source, fields = _source(config)
  if config.task in _TFDS:
    name, where = _TFDS[config.task], config.tfds_directory or 'its own folder (DataConfig.tfds_directory)'
    try:
      builder = source.tfds_dataset.builder
      builder.download_and_prepare()
    except Exception as error:  # downloading and building fail in many ways
      found = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
      raise UserError(f'{name}: expected TFDS to have or to build it in {where}, found {found:.300}') from error
  return source, fields


def version_of(config: DataConfig) -> str:
  """What tells one version of a streamed task's text from another; raises UserError as the source does."""
  if config.task in _TFDS:
    info = _checked_source(config)[0].tfds_dataset.info
    sizes = {name: (split.num_examples, split.num_bytes) for name, split in info.splits.items()}
    return f'{info.full_name} {sizes}'
  return local_folder.version_of(config.local_folder) if config.task == 'local_folder' else ''


def texts(config: DataConfig) -> Iterator[str]:
  """The beginning of a streamed task's training text, example by example: enough to train a vocabulary on."""
  source, fields = _checked_source(config)
  read = 0
  with in_a_sentence(f'task {config.task}, train'):
    for example in source.get_dataset(split='train', shuffle=False).as_numpy_iterator():
      yield '\n'.join(example[field].decode('utf-8') for field in fields.values())
      read += sum(len(example[field]) for field in fields.values())
      if read > _TEXT_BYTES:
        return


def streamed(config: DataConfig, vocabulary_path: str | Path) -> seqio.Task:
  """The deterministic part of one of this library's tasks, not registered: running text is tokenised and no more."""
  source, fields = _checked_source(config)
  vocabulary = seqio.SentencePieceVocabulary(str(vocabulary_path), extra_ids=config.vocabulary.sentinels)
  features = {name: seqio.Feature(vocabulary) for name in fields}
  tells = {RECORD: RECORD} if RECORD in getattr(source, 'features', ()) else {}
  steps = [_rekey(fields | tells), seqio.preprocessors.tokenize]
  return seqio.Task(config.task, source=source, output_features=features, preprocessors=steps)


def _rekey(fields: Mapping[str, str]):
  return functools.partial(seqio.preprocessors.rekey, key_map=dict(fields))


def running_text(
  dataset: tf.data.Dataset,
  output_features: Mapping[str, seqio.Feature],
  sequence_length: Mapping[str, int] | None = None,
  *,
  objective: ObjectiveConfig,
) -> tf.data.Dataset:
  """A seqio preprocessor: tokenised documents become windows, and each window an example of the objective.

  It is what reading prepared data does, by the same function. Without lengths they are 512 and 114.

  Raises:
    UserError: if the lengths do not fit the objective.
  """
  lengths = _T5_LENGTHS | dict(sequence_length or {}) | ({'inputs': 0} if isinstance(objective, LMConfig) else {})
  vocabulary = output_features['targets'].vocabulary
  config = DataConfig('text', inputs_length=lengths['inputs'], targets_length=lengths['targets'], objective=objective)
  documents = dataset.map(lambda example: example['targets'])
  if objective.separates:
    documents = documents.map(lambda ids: tf.concat([ids, [vocabulary.eos_id]], 0))
  windows = documents.unbatch().batch(config.window_length).filter(lambda ids: tf.size(ids) > 1)

  def arrange(window: np.ndarray, seed: np.ndarray) -> list[np.ndarray]:
    rng = np.random.default_rng(seed.astype(np.uint32))
    made = make_arrange(config, True, vocabulary.vocab_size)({'targets': window}, rng)
    return [ids[: np.count_nonzero(ids)] for ids in made]

  @seqio.map_over_dataset(num_seeds=1)
  def example(window, seed):
    inputs, targets = tf.numpy_function(arrange, [window, seed], [tf.int32, tf.int32])
    made = {'inputs': tf.ensure_shape(inputs, [None]), 'targets': tf.ensure_shape(targets, [None])}
    return {name: made[name] for name in output_features}

  return example(windows)


def register_all(
  vocabulary_path: str | Path = T5_VOCABULARY, sentinels: int = 100, config: DataConfig | None = None
) -> list[str]:
  """Registers C4, the scientific papers and the algorithmic tasks, in the place of earlier registrations.

  Args:
    vocabulary_path: a sentencepiece file, local or at `gs://`; it is read when a task is first used.
    sentinels: ids that are added to it.
    config: has `tfds_directory` and `digits`; the defaults if None.

  Returns:
    Their names.
  """
  names = [*_TFDS, *store.DIGIT_TASKS]
  vocabulary = seqio.SentencePieceVocabulary(str(vocabulary_path), extra_ids=sentinels)
  for name in names:
    of_task = DataConfig(
      name,
      inputs_length=0 if name == 'c4_lm' else 512,
      targets_length=512,
      tfds_directory=config.tfds_directory if config else '',
      digits=config.digits if config else DataConfig().digits,
    )
    source, fields = _source(of_task)
    features, steps, metrics = fields, [seqio.preprocessors.append_eos_after_trim], [scores.rouge]
    if name in store.C4_TASKS:
      features = ['targets'] if name == 'c4_lm' else _PAIRS
      steps = [functools.partial(running_text, objective=of_task.text_objective)]
      metrics = [scores.log_likelihood]
    elif name in store.DIGIT_TASKS:
      metrics = [scores.exact_match]
    if name in seqio.TaskRegistry.names():
      seqio.TaskRegistry.remove(name)
    seqio.TaskRegistry.add(
      name,
      source=source,
      preprocessors=[_rekey(fields), seqio.preprocessors.tokenize, *steps],
      output_features={feature: seqio.Feature(vocabulary, add_eos=name not in store.C4_TASKS) for feature in features},
      metric_fns=metrics,
    )
  return names


register_all()
