"""Configurations of training data."""

import dataclasses
from typing import Any

from terraformer.config import migrations
from terraformer.config.base import Checked, expect
from terraformer.config.objectives import LMConfig, ObjectiveConfig, PrefixLMConfig
from terraformer.config.sources import DataSource, DocstringSummariesConfig
from terraformer.config.words import flag

_MOST_IDS = 2**22  # the maximum number of rows of an embedding
_MOST_PARTS = 100_000  # each part is a folder


@dataclasses.dataclass(frozen=True)
class TokenizerConfig(Checked):
  """A vocabulary, read from a file or trained on the task's own text as a sentencepiece model.

  Attributes:
    path: a sentencepiece model to use, a subword file of tensor2tensor, or the vocabulary that `import` wrote; empty
      trains one when the task is prepared.
    size: number of ids, including the sentinels, of a vocabulary to train.
    sentinels: number of ids reserved at the end of the vocabulary for span corruption, from the last id down. A model
      with its own pieces `<extra_id_0>`, `<extra_id_1>` ..., like mT5's, uses this many of those instead.
  """

  path: str = ''
  size: int = 8192
  sentinels: int = 100

  def check(self):
    self._at_least(0, 'sentinels')
    self._at_most(_MOST_IDS, 'size')
    expect(
      self.size >= 300 + self.sentinels,
      f'TokenizerConfig.size: expected at least {300 + self.sentinels} (including sentinels), found {self.size}',
    )


@dataclasses.dataclass(frozen=True)
class PackingConfig(Checked):
  """Puts several short examples into one batch row; no example sees another.

  They share only random choices that are made once per row: the dropout mask of an output.

  Attributes:
    max_segments: maximum number of examples per row; 0 for as many as fit.
  """

  max_segments: int = 0

  def check(self):
    self._at_least(0, 'max_segments')


@dataclasses.dataclass(frozen=True)
class DataConfig(Checked):
  """Where text comes from, how examples are made from it, and where the prepared data are stored.

  Attributes:
    source: where the text comes from.
    directory: the prepared shards are in `directory/task`, see `task`.
    inputs_length, targets_length: numbers of tokens to which training examples are truncated and padded, including the
      end of sequence.
    objective: the objective for running text; None for prefix language modeling or, in a mixture, for the objective
      with which each task of this library is registered.
    tokenizer: the tokenizer.
    max_examples: maximum number of training examples to keep, taken evenly from each part of the corpus, with an equal
      share for each; 0 keeps all. In a mixture this limits each task.
    packing: puts several training examples into one row when the data are prepared; None gives each its own row, as
      held-out examples always have. `inputs_length` and `targets_length` are then the lengths of a row, and still the
      maximum lengths of an example. Running text can be packed only for language modeling: a document that is longer
      than a row is cut into several examples, and no example has two documents.
    parts: number of parts into which the source is divided. Any process can prepare a part, and a finished part is kept
      when its process dies. The prepared data depend on the number of parts, not on the number of processes.
    name: name of the task; empty for the source's own name. Two tasks in one directory need two names.
    inputs_eos: whether inputs end in an end of sequence. Without it they are still cut to one token less than
      `inputs_length`.
  """

  source: DataSource = DocstringSummariesConfig()
  directory: str = 'prepared'
  inputs_length: int = 128
  targets_length: int = 32
  objective: ObjectiveConfig | None = None
  tokenizer: TokenizerConfig = TokenizerConfig()
  max_examples: int = 0
  packing: PackingConfig | None = None
  parts: int = 1
  name: str = ''
  inputs_eos: bool = True

  _wide = ('max_examples',)

  def check(self):
    self._at_least(2, 'targets_length')
    self._at_least(0, 'max_examples')
    self._between(1, _MOST_PARTS, 'parts')
    expect(
      not self.max_examples or self.max_examples >= self.parts,
      f'DataConfig.max_examples: expected 0 or at least one per part ({self.parts}), found {self.max_examples}',
    )
    expect(
      self.task not in ('', '.', '..') and not set(self.task) & {'/', '\\', '\0'},
      f'the name of the task, {self.task!r}, cannot be the name of a folder; choose one with '
      + flag('DataConfig.name', repr('NAME')),
    )
    expect(bool(self.directory), f'DataConfig.directory is empty; {flag("DataConfig.directory", repr("DIR"))} sets it')
    self.text_objective.check_lengths(self.inputs_length, self.targets_length, self.tokenizer.sentinels)
    expect(
      self.inputs_eos or not self.packing,
      'DataConfig.packing: packed examples end in an end of sequence; turn one off with '
      f'{flag("DataConfig.packing", "None")} or {flag("DataConfig.inputs_eos", "True")}',
    )
    if self.packing and self.objective:
      self.check_packed_text()

  def check_packed_text(self) -> None:
    """Raises UserError unless the objective allows packing of running text."""
    found = type(self.text_objective).__name__
    expect(
      isinstance(self.text_objective, LMConfig),
      f'DataConfig.packing: running text can be packed only with the objective LMConfig, found {found}',
    )

  @classmethod
  def migrated(cls, fields: dict[str, Any]) -> dict[str, Any]:
    return migrations.data_fields(fields) if 'task' in fields else fields

  @property
  def task(self) -> str:
    """The name of the task, in messages and of the folder of its prepared data."""
    return self.name or self.source.task

  @property
  def text_objective(self) -> ObjectiveConfig:
    """The objective for running text."""
    return self.objective or PrefixLMConfig()

  def with_objective(self, objective: ObjectiveConfig | None) -> 'DataConfig':
    """Returns the config with a task's own objective, which applies only if the config names none.

    Raises:
      UserError: if the lengths do not fit the objective, or it does not allow the configured packing.
    """
    return self if self.objective or not objective else dataclasses.replace(self, objective=objective)

  @property
  def lengths(self) -> dict[str, int]:
    """Numbers of tokens in a batch row, by feature."""
    return {'inputs': self.inputs_length, 'targets': self.targets_length}

  @property
  def batch_lengths(self) -> dict[str, int]:
    """Lengths of the rows of all int32 arrays of a training batch, by name."""
    segments = {f'{name}_segments': length for name, length in self.lengths.items()} if self.packing else {}
    return self.lengths | segments

  @property
  def window_length(self) -> int:
    """Number of tokens in a stored window of running text."""
    return self.text_objective.window_length(self.inputs_length, self.targets_length)
