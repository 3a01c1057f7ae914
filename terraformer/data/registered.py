"""Registers this library's tasks in seqio. Imports TensorFlow.

Importing this module registers the tasks that need no user files, with T5's vocabulary of 32,000 ids and 100 sentinels,
which is read when a task is first used: `seqio.get_mixture_or_task('c4_span_corruption')`. `register_all` registers
them with another vocabulary. `register` registers a task of your own text under any name, for example for a mixture.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import seqio
import tensorflow as tf

from terraformer import paths
from terraformer.config import (
  DataConfig,
  DecimalCopyConfig,
  DocstringSummariesConfig,
  DocstringTextConfig,
  LMConfig,
  LongAdditionConfig,
  PrefixLMConfig,
  SpanCorruptionConfig,
  TfdsConfig,
  TokenizerConfig,
)
from terraformer.config.objectives import ObjectiveConfig
from terraformer.data import scores, tasks
from terraformer.data import sentinels as sentinel_pieces
from terraformer.data.job import Component
from terraformer.data.objectives import make_arrange
from terraformer.data.source import Source, make_source
from terraformer.data.store import FEATURES, RECORD
from terraformer.data.tokenizer import Tokenizer

T5_VOCABULARY = 'gs://t5-data/vocabs/cc_all.32000/sentencepiece.model'
_T5_LENGTHS = {'inputs': 512, 'targets': 114}


class SentencePieceVocabulary(seqio.SentencePieceVocabulary):
  """seqio's vocabulary, which also supports a model with its own sentinels, to which seqio could not add any.

  `extra_ids` is the number of sentinels. With a model without sentinels it behaves like seqio's and equals it.
  """

  def _model_context(self):
    if not self._model and self.extra_ids:
      without = seqio.SentencePieceVocabulary(self.sentencepiece_model_file)
      if None not in sentinel_pieces.ids_of(without.tokenizer, self.extra_ids):
        self._model = without._model_context()
    return super()._model_context()


class TokenizerVocabulary(seqio.PassThroughVocabulary):
  """A tokenizer of this library that is no sentencepiece model, as seqio's preprocessors use it."""

  def __init__(self, tokenizer: Tokenizer):
    super().__init__(tokenizer.size, tokenizer.eos_id)
    self._tokenizer = tokenizer

  def _encode(self, s: str) -> list[int]:
    return self._tokenizer.encode(s)

  def _decode(self, ids) -> str:
    return self._tokenizer.decode(ids)

  def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
    encode = lambda text: np.array(self._tokenizer.encode(text.decode()), np.int32)  # noqa: E731
    ids = tf.numpy_function(encode, [s], tf.int32, stateful=False)
    ids.set_shape([None])
    return ids

  def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
    return tf.numpy_function(lambda ids: self._tokenizer.decode(ids.tolist()).encode(), [ids], tf.string)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, TokenizerVocabulary) and self._tokenizer.fingerprint == other._tokenizer.fingerprint


def _vocabulary(path: str, sentinels: int) -> SentencePieceVocabulary | TokenizerVocabulary:
  """The vocabulary of a local file; sentencepiece models have a class of seqio, which tokenizes in TensorFlow."""
  tokenizer = Tokenizer.open(path, sentinels)
  if type(tokenizer) is Tokenizer:
    return SentencePieceVocabulary(path, extra_ids=sentinels)
  return TokenizerVocabulary(tokenizer)


def component(config: DataConfig, source: Source, vocabulary_path: str | Path) -> Component:
  """Returns the task of a source to prepare; running text gives documents, which become windows later.

  Args:
    config: contains the name of the task and the number of sentinels.
    source: the source of the config.
    vocabulary_path: a local file that `Tokenizer.open` reads.

  Raises:
    UserError: if its text is missing.
  """
  read, fields = source.as_seqio()
  path = str(paths.plain(vocabulary_path))
  vocabulary = _vocabulary(path, config.tokenizer.sentinels)
  features = {feature: seqio.Feature(vocabulary) for feature in fields}
  steps = [_rekey(read, fields), seqio.preprocessors.tokenize]
  return Component(seqio.Task(config.task, source=read, output_features=features, preprocessors=steps))


def components(task: seqio.Task | seqio.Mixture) -> list[Component]:
  """Returns a registered task, or the tasks of a mixture, to prepare.

  A task that ends in `running_text` is prepared without that step, so that spans are sampled when the data are read.

  Raises:
    UserError: if the rates of a mixture are invalid.
  """
  found = []
  for one, rate in tasks.weighted(task):
    *steps, last = one.preprocessors or [None]
    objective = last.keywords['objective'] if getattr(last, 'func', None) is running_text else None
    if objective:
      features = {'targets': seqio.Feature(one.output_features['targets'].vocabulary)}
      one = seqio.Task(one.name, source=one.source, output_features=features, preprocessors=steps)
    found.append(Component(one, rate, objective, tasks.scoring_of(one.source)))
  return found


def _rekey(source: seqio.DataSource, fields: Mapping[str, str]):
  tells = {RECORD: RECORD} if isinstance(source, tasks.Texts) and source.source.tells_where else {}
  return functools.partial(seqio.preprocessors.rekey, key_map=dict(fields) | tells)


def running_text(
  dataset: tf.data.Dataset,
  output_features: Mapping[str, seqio.Feature],
  sequence_length: Mapping[str, int] | None = None,
  *,
  objective: ObjectiveConfig,
) -> tf.data.Dataset:
  """A seqio preprocessor that turns tokenized documents into windows, and each window into an example.

  It uses the same function as the reader of prepared data. The default lengths are 512 and 114.

  Raises:
    UserError: if the lengths do not fit the objective.
  """
  lengths = _T5_LENGTHS | dict(sequence_length or {}) | ({'inputs': 0} if isinstance(objective, LMConfig) else {})
  vocabulary = output_features['targets'].vocabulary
  config = DataConfig(
    inputs_length=lengths['inputs'],
    targets_length=lengths['targets'],
    objective=objective,
    tokenizer=TokenizerConfig(sentinels=vocabulary.extra_ids),
  )
  sentinel_ids = sentinel_pieces.ids_of(vocabulary.tokenizer, vocabulary.extra_ids)
  documents = dataset.map(lambda example: example['targets'])
  if objective.separates:
    documents = documents.map(lambda ids: tf.concat([ids, [vocabulary.eos_id]], 0))
  windows = documents.unbatch().batch(config.window_length).filter(lambda ids: tf.size(ids) >= objective.least_window)

  def arrange(window: np.ndarray, seed: np.ndarray) -> list[np.ndarray]:
    rng = np.random.default_rng(seed.astype(np.uint32))
    made = make_arrange(config, True, sentinel_ids)({'targets': window}, rng)
    return [ids[: np.count_nonzero(ids)] for ids in made]

  @seqio.map_over_dataset(num_seeds=1)
  def example(window, seed):
    inputs, targets = tf.numpy_function(arrange, [window, seed], [tf.int32, tf.int32])
    made = {'inputs': tf.ensure_shape(inputs, [None]), 'targets': tf.ensure_shape(targets, [None])}
    return {name: made[name] for name in output_features}

  return example(windows)


def register(config: DataConfig, name: str = '') -> seqio.Task:
  """Registers the task of a source, replacing an earlier registration, and returns it.

  Args:
    config: the source; `tokenizer.path` is a sentencepiece file, local or at `gs://`, which is read when the task is
      first used; T5's if empty. `text_objective` applies to running text. The caller of seqio chooses the lengths.
    name: the name in seqio's registry; the task's own name if empty.

  Raises:
    UserError: if the user's files are missing, or their kind is not clear from their names.
  """
  name = name or config.task
  vocabulary = SentencePieceVocabulary(config.tokenizer.path or T5_VOCABULARY, extra_ids=config.tokenizer.sentinels)
  source = make_source(config.source)
  read, fields = source.as_seqio()
  is_text = 'inputs' not in fields
  if is_text:
    features = FEATURES[1:] if isinstance(config.text_objective, LMConfig) else FEATURES
    arrange = functools.partial(running_text, objective=config.text_objective)
    metric = scores.log_likelihood
  else:
    features, arrange, metric = FEATURES, seqio.preprocessors.append_eos_after_trim, source.metric
  if name in seqio.TaskRegistry.names():
    seqio.TaskRegistry.remove(name)
  return seqio.TaskRegistry.add(
    name,
    source=read,
    preprocessors=[_rekey(read, fields), seqio.preprocessors.tokenize, arrange],
    output_features={feature: seqio.Feature(vocabulary, add_eos=not is_text) for feature in features},
    metric_fns=[metric],
  )


def register_all(
  vocabulary_path: str | Path = T5_VOCABULARY, sentinels: int = 100, tfds_directory: str = ''
) -> list[str]:
  """Registers the tasks of this library that need no user files, replacing earlier registrations.

  Args:
    vocabulary_path: a sentencepiece file, local or at `gs://`; it is read when a task is first used.
    sentinels: number of ids to add to it.
    tfds_directory: where TensorFlow Datasets keeps C4 and the scientific papers; empty for its default.

  Returns:
    The names of the tasks.
  """
  c4 = TfdsConfig('c4/en:3.1.0', tfds_directory)
  arxiv, pubmed = (
    TfdsConfig(f'scientific_papers/{name}:1.1.1', tfds_directory, 'article', 'abstract') for name in ('arxiv', 'pubmed')
  )
  lengths = {'inputs_length': 512, 'targets_length': 512}
  configs = (
    DataConfig(DocstringSummariesConfig(), **lengths),
    DataConfig(DocstringTextConfig(), **lengths),
    DataConfig(c4, **lengths, objective=SpanCorruptionConfig(), name='c4_span_corruption'),
    DataConfig(c4, inputs_length=0, targets_length=512, objective=LMConfig(), name='c4_lm'),
    DataConfig(c4, **lengths, objective=PrefixLMConfig(), name='c4_prefix_lm'),
    DataConfig(arxiv, **lengths, name='arxiv_summarization'),
    DataConfig(pubmed, **lengths, name='pubmed_summarization'),
    DataConfig(DecimalCopyConfig(), **lengths),
    DataConfig(LongAdditionConfig(), **lengths),
  )
  tokenizer = TokenizerConfig(str(vocabulary_path), sentinels=sentinels)
  return [register(dataclasses.replace(config, tokenizer=tokenizer)).name for config in configs]


register_all()
