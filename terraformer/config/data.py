"""What a model is trained on."""

import dataclasses
from typing import Any

from terraformer.config import migrations
from terraformer.config.base import Checked, expect
from terraformer.config.objectives import LMConfig, ObjectiveConfig, PrefixLMConfig
from terraformer.config.sources import DataSource, DocstringSummariesConfig

_MOST_IDS = 2**22  # as many rows as an embedding has at most
_MOST_PARTS = 100_000  # each is a folder


@dataclasses.dataclass(frozen=True)
class TokenizerConfig(Checked):
  """A vocabulary, read from a file or trained on the task's own text as a sentencepiece model.

  Attributes:
    path: a sentencepiece model to use, a subword file of tensor2tensor, or the vocabulary that `import` wrote; empty
      trains one while the task is prepared.
    size: ids in all, the sentinels included, of a vocabulary that is trained.
    sentinels: ids kept at the end of the vocabulary for span corruption, counted downwards from the last one. A model
      that has pieces `<extra_id_0>`, `<extra_id_1>` ... of its own, as mT5's has, keeps those: so many of them serve.
  """

  path: str = ''
  size: int = 8192
  sentinels: int = 100

  def check(self):
    self._at_least(0, 'sentinels')
    self._at_most(_MOST_IDS, 'size')
    expect(
      self.size >= 300 + self.sentinels,
      f'TokenizerConfig.size: expected at least {300 + self.sentinels} (sentinels included), found {self.size}',
    )


@dataclasses.dataclass(frozen=True)
class PackingConfig(Checked):
  """Several short examples stand in one row of a training batch, each for itself: none sees another.

  What they share is what is drawn once a row, the mask of an output's dropout.

  Attributes:
    max_segments: examples of a row at most; 0 for as many as fit.
  """

  max_segments: int = 0

  def check(self):
    self._at_least(0, 'max_segments')


@dataclasses.dataclass(frozen=True)
class DataConfig(Checked):
  """Where text comes from, what it is made into, and where its prepared form lies.

  Attributes:
    source: where the text comes from.
    directory: the prepared shards are in `directory/task`, see `task`.
    inputs_length, targets_length: tokens that a training example is cut and padded to, end-of-sequence included.
    objective: what a task of running text trains; None for prefix language modelling, and of this library's tasks in a
      mixture for what they are registered with.
    vocabulary: the tokens.
    max_examples: training examples that are kept at most, of each part of the corpus an equal share, taken evenly over
      it; 0 keeps all. Of a mixture it is as many of each task.
    packing: puts several training examples into one row, when the data are prepared; None gives each a row of its own,
      as examples that are held out have. `inputs_length` and `targets_length` are then those of a row, and what an
      example is cut to, as ever. Of running text only language modelling can be packed: a document that is longer than
      a row is cut into several examples, and no example has two documents.
    parts: pieces that the source is divided into. Each is prepared by itself and kept when the process dies, by
      whichever process; what is prepared depends on their number and not on the processes'.
    name: of the task; empty for the source's own name. Two tasks in one directory need two names.
    inputs_eos: whether inputs end in an end of sequence. Without it they are cut to one token less than their length
      all the same.
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
      f'DataConfig.max_examples: expected 0 or at least one a part ({self.parts}), found {self.max_examples}',
    )
    expect(
      self.task not in ('', '.', '..') and not set(self.task) & {'/', '\\', '\0'},
      f'DataConfig.name, or else the name of its source: expected one that a folder can have, found {self.task!r}',
    )
    expect(bool(self.directory), 'DataConfig.directory: expected a folder, found an empty string')
    self.text_objective.check_lengths(self.inputs_length, self.targets_length, self.tokenizer.sentinels)
    expect(
      self.inputs_eos or not self.packing,
      'DataConfig.packing: packed examples end in an end of sequence; set it to None, or inputs_eos to True',
    )
    if self.packing and self.objective:
      self.check_packed_text()

  def check_packed_text(self) -> None:
    """Raises UserError unless running text can be packed."""
    found = type(self.text_objective).__name__
    expect(
      isinstance(self.text_objective, LMConfig),
      f'DataConfig.packing: expected None, or the objective LMConfig for running text, found {found}',
    )

  @classmethod
  def migrated(cls, fields: dict[str, Any]) -> dict[str, Any]:
    return migrations.data_fields(fields) if 'task' in fields else fields

  @property
  def task(self) -> str:
    """The name of the task: that of the folder of its prepared data, and in messages."""
    return self.name or self.source.task

  @property
  def text_objective(self) -> ObjectiveConfig:
    """The objective where the task is one of running text."""
    return self.objective or PrefixLMConfig()

  def with_objective(self, objective: ObjectiveConfig | None) -> 'DataConfig':
    """The config of a task that has an objective of its own, which counts where the config names none.

    Raises:
      UserError: if the lengths do not fit it, or it cannot be packed and is to be.
    """
    return self if self.objective or not objective else dataclasses.replace(self, objective=objective)

  @property
  def lengths(self) -> dict[str, int]:
    """Tokens of a row of a batch, by feature."""
    return {'inputs': self.inputs_length, 'targets': self.targets_length}

  @property
  def batch_lengths(self) -> dict[str, int]:
    """The same of all int32 arrays of a training batch, by name."""
    segments = {f'{name}_segments': length for name, length in self.lengths.items()} if self.packing else {}
    return self.lengths | segments

  @property
  def window_length(self) -> int:
    """Tokens of a stored window of running text."""
    return self.text_objective.window_length(self.inputs_length, self.targets_length)
