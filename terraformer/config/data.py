"""What a model is trained on."""

import dataclasses

from terraformer.config.base import Checked, expect


@dataclasses.dataclass(frozen=True)
class VocabularyConfig(Checked):
  """A sentencepiece vocabulary, read from a file or trained on the task's own text.

  Attributes:
    path: a sentencepiece model to use; empty trains one while the task is prepared.
    size: ids in all, the sentinels included, of a vocabulary that is trained.
    sentinels: ids kept at the end of the vocabulary for span corruption, counted downwards from the last one.
  """

  path: str = ''
  size: int = 8192
  sentinels: int = 100

  def check(self):
    self._at_least(0, 'sentinels')
    expect(
      self.size >= 300 + self.sentinels,
      f'VocabularyConfig.size: expected at least {300 + self.sentinels} (sentinels included), found {self.size}',
    )


@dataclasses.dataclass(frozen=True)
class LocalFilesConfig(Checked):
  """A user's own files: `.txt` (language modelling) or `.jsonl` (one object a line, with named fields).

  Attributes:
    train, validation, test: paths or glob patterns of each split, all of one kind. Where `validation` or `test` is
      empty, a twentieth of the training examples, chosen by a hash of their text, takes its place.
    inputs_field: the source's field in `.jsonl`; empty makes a language-modelling task of `targets_field`.
    targets_field: the target's field in `.jsonl`.
  """

  train: tuple[str, ...] = ()
  validation: tuple[str, ...] = ()
  test: tuple[str, ...] = ()
  inputs_field: str = 'inputs'
  targets_field: str = 'targets'


@dataclasses.dataclass(frozen=True)
class DataConfig(Checked):
  """A task and where its prepared form lies.

  Attributes:
    task: name of a registered seqio task or mixture; `docstring_summarization`, `docstring_text` and `local_files`
      are this library's.
    directory: the prepared shards are in `directory/task`.
    inputs_length, targets_length: tokens that a training example is cut and padded to, end-of-sequence included.
    vocabulary: the tokens.
    local_files: where the task `local_files` reads.
    max_examples: training examples that are kept at most, taken evenly over the corpus; 0 keeps all.
  """

  task: str = 'docstring_summarization'
  directory: str = 'prepared'
  inputs_length: int = 128
  targets_length: int = 32
  vocabulary: VocabularyConfig = VocabularyConfig()
  local_files: LocalFilesConfig = LocalFilesConfig()
  max_examples: int = 0

  def check(self):
    self._at_least(2, 'inputs_length', 'targets_length')
    self._at_least(0, 'max_examples')
    expect(bool(self.task), 'DataConfig.task: expected the name of a task, found an empty string')
    expect(bool(self.directory), 'DataConfig.directory: expected a folder, found an empty string')
