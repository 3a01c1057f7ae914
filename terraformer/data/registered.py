"""This library's tasks under the names by which seqio finds them. Imports TensorFlow.

Importing this module registers those that need no files of the user's, with T5's vocabulary of 32,000 ids and 100
sentinels, which is read when a task is first used: `seqio.get_mixture_or_task('c4_span_corruption')`. `register_all`
registers them with another, and `register` a task of one's own text, under any name: mixtures are made of such tasks.
"""

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import seqio
import tensorflow as tf

from terraformer import paths
from terraformer.config import DataConfig, LMConfig, UserError, VocabularyConfig
from terraformer.config.objectives import ObjectiveConfig
from terraformer.data import scores, sources, store, tasks
from terraformer.data import sentinels as sentinel_pieces
from terraformer.data.job import Component
from terraformer.data.objectives import make_arrange
from terraformer.data.own_texts import Examples
from terraformer.data.store import FEATURES, RECORD

T5_VOCABULARY = 'gs://t5-data/vocabs/cc_all.32000/sentencepiece.model'
_T5_LENGTHS = {'inputs': 512, 'targets': 114}


class SentencePieceVocabulary(seqio.SentencePieceVocabulary):
  """seqio's, but for a model that has sentinels of its own, to which seqio could not add any: those serve.

  `extra_ids` is how many sentinels there are. With a model that has none it does as seqio's does, and equals it.
  """

  def _model_context(self):
    if not self._model and self.extra_ids:
      without = seqio.SentencePieceVocabulary(self.sentencepiece_model_file)
      if None not in sentinel_pieces.ids_of(without.tokenizer, self.extra_ids):
        self._model = without._model_context()
    return super()._model_context()


def component(config: DataConfig, vocabulary_path: str | Path, examples: Examples | None = None) -> Component:
  """One of this library's tasks as it is prepared: of running text documents, which become windows later.

  Args:
    config: names the task, and the sentinels of its vocabulary.
    vocabulary_path: a sentencepiece file of this machine.
    examples: of one of `store.HELD_TASKS`, where they have been read already.

  Raises:
    UserError: if its text is not there.
  """
  source, fields = sources.checked(config, examples)
  path = str(paths.plain(vocabulary_path))
  vocabulary = SentencePieceVocabulary(path, extra_ids=config.vocabulary.sentinels)
  features = {feature: seqio.Feature(vocabulary) for feature in fields}
  steps = [_rekey(source, fields), seqio.preprocessors.tokenize]
  return Component(seqio.Task(config.task, source=source, output_features=features, preprocessors=steps))


def components(task: seqio.Task | seqio.Mixture) -> list[Component]:
  """A registered task, or those of a mixture, as they are prepared.

  Of one that ends in `running_text` the documents before that step are, so that spans are drawn when it is read.

  Raises:
    UserError: if the rates of a mixture are none.
  """
  found = []
  for one, rate in tasks.weighted(task):
    *steps, last = one.preprocessors or [None]
    objective = last.keywords['objective'] if getattr(last, 'func', None) is running_text else None
    if objective:
      features = {'targets': seqio.Feature(one.output_features['targets'].vocabulary)}
      one = seqio.Task(one.name, source=one.source, output_features=features, preprocessors=steps)
    found.append(Component(one, rate, objective))
  return found


def _rekey(source: seqio.DataSource, fields: Mapping[str, str]):
  tells = {RECORD: RECORD} if RECORD in getattr(source, 'features', ()) else {}
  return functools.partial(seqio.preprocessors.rekey, key_map=dict(fields) | tells)


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
  config = DataConfig(
    'text',
    inputs_length=lengths['inputs'],
    targets_length=lengths['targets'],
    objective=objective,
    vocabulary=VocabularyConfig(sentinels=vocabulary.extra_ids),
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
  """Registers one of this library's tasks, in the place of an earlier registration, and returns it.

  Args:
    config: the task and where its text lies; `vocabulary.path` is a sentencepiece file, local or at `gs://`, T5's if it
      is empty, which is read when the task is first used. Running text is arranged by `text_objective`. Lengths are
      given by whoever asks seqio for the data set.
    name: in seqio's registry; the task's own if empty.

  Raises:
    UserError: if the user's files that it names are not there, or their names do not tell what they are.
  """
  if config.task not in store.OWN_TASKS:
    raise UserError(f'DataConfig.task: expected one of {", ".join(store.OWN_TASKS)}, found {config.task!r}')
  name = name or config.task
  vocabulary = SentencePieceVocabulary(config.vocabulary.path or T5_VOCABULARY, extra_ids=config.vocabulary.sentinels)
  source, fields = sources.source_of(config)
  is_text = 'inputs' not in fields
  if is_text:
    features = FEATURES[1:] if isinstance(config.text_objective, LMConfig) else FEATURES
    arrange = functools.partial(running_text, objective=config.text_objective)
    metric = scores.log_likelihood
  else:
    features, arrange = FEATURES, seqio.preprocessors.append_eos_after_trim
    metric = scores.exact_match if config.task in store.DIGIT_TASKS else scores.rouge
  if name in seqio.TaskRegistry.names():
    seqio.TaskRegistry.remove(name)
  return seqio.TaskRegistry.add(
    name,
    source=source,
    preprocessors=[_rekey(source, fields), seqio.preprocessors.tokenize, arrange],
    output_features={feature: seqio.Feature(vocabulary, add_eos=not is_text) for feature in features},
    metric_fns=[metric],
  )


def register_all(
  vocabulary_path: str | Path = T5_VOCABULARY, sentinels: int = 100, config: DataConfig | None = None
) -> list[str]:
  """Registers all of this library's tasks under their own names, in the place of earlier registrations.

  Args:
    vocabulary_path: a sentencepiece file, local or at `gs://`; it is read when a task is first used.
    sentinels: ids that are added to it.
    config: has `tfds_directory`, `digits`, `local_files` and `local_folder`; the defaults if None. The last two are
      registered where it names files.

  Returns:
    Their names.
  """
  given = config or DataConfig()
  has_files = {'local_files': given.local_files.train, 'local_folder': given.local_folder.directory}
  names = [name for name in store.OWN_TASKS if has_files.get(name, True)]
  for name in names:
    register(
      DataConfig(
        name,
        inputs_length=0 if name == 'c4_lm' else 512,
        targets_length=512,
        vocabulary=VocabularyConfig(str(vocabulary_path), sentinels=sentinels),
        tfds_directory=given.tfds_directory,
        digits=given.digits,
        local_files=given.local_files,
        local_folder=given.local_folder,
      )
    )
  return names


register_all()
