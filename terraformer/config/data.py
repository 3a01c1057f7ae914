"""What a model is trained on."""

import dataclasses
from pathlib import Path

from terraformer.config.base import Checked, expect
from terraformer.config.objectives import LMConfig, ObjectiveConfig, PrefixLMConfig, SpanCorruptionConfig

_OBJECTIVES = {'c4_span_corruption': SpanCorruptionConfig(), 'c4_lm': LMConfig()}  # of tasks, unless one is given


_MOST_IDS = 2**22  # as many rows as an embedding has at most
_MOST_DIGITS = 1_000_000  # of a number that is drawn in memory
_MOST_PARTS = 100_000  # each is a folder


@dataclasses.dataclass(frozen=True)
class VocabularyConfig(Checked):
  """A sentencepiece vocabulary, read from a file or trained on the task's own text.

  Attributes:
    path: a sentencepiece model to use; empty trains one while the task is prepared.
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
      f'VocabularyConfig.size: expected at least {300 + self.sentinels} (sentinels included), found {self.size}',
    )


@dataclasses.dataclass(frozen=True)
class LocalFilesConfig(Checked):
  """A user's own files: `.txt` (language modelling) or `.jsonl` (one object a line, with named fields).

  Attributes:
    train, validation, test: paths or glob patterns of each split, all of one kind. Where `validation` or `test` is
      empty, a twentieth of the training examples, chosen by a hash of their text, takes its place. A file of `train` in
      another split is refused.
    inputs_field: the source's field in `.jsonl`; empty makes a language-modelling task of `targets_field`.
    targets_field: the target's field in `.jsonl`.
  """

  train: tuple[str, ...] = ()
  validation: tuple[str, ...] = ()
  test: tuple[str, ...] = ()
  inputs_field: str = 'inputs'
  targets_field: str = 'targets'

  def check(self):
    for name in ('train', 'validation', 'test'):
      expect(
        all(getattr(self, name)), f'LocalFilesConfig.{name}: expected paths or patterns, found an empty one among them'
      )

  def is_same(self, name, old, new):
    if name not in ('train', 'validation', 'test'):
      return old == new
    return [Path(path).absolute() for path in old] == [Path(path).absolute() for path in new]


@dataclasses.dataclass(frozen=True)
class LocalFolderConfig(Checked):
  """A folder of Parquet or JSONL files, laid out as Hugging Face `datasets` writes and reads them.

  Attributes:
    directory: the folder. A file belongs to the split that stands in its name, or in that of a folder between, as a
      word: `train` (`training`), `validation` (`valid`, `val`, `dev`) or `test` (`testing`, `eval`, `evaluation`).
    inputs_field: the source's column; empty makes a language-modelling task of `targets_field`.
    targets_field: the target's column.
  """

  directory: str = ''
  inputs_field: str = 'inputs'
  targets_field: str = 'targets'


@dataclasses.dataclass(frozen=True)
class DigitsConfig(Checked):
  """The paper's algorithmic tasks: numbers are drawn with a length that is drawn first.

  Attributes:
    train_digits: least and most digits of a number, in training and validation.
    test_digits: the same of the test split.
    train_examples, held_out_examples: of training, and of validation and test each.
    seed: of the draws.
  """

  train_digits: tuple[int, ...] = (1, 128)
  test_digits: tuple[int, ...] = (256, 300)
  train_examples: int = 200_000
  held_out_examples: int = 1000
  seed: int = 0

  _wide = ('seed',)

  def check(self):
    self._at_least(1, 'train_examples', 'held_out_examples')
    self._at_least(0, 'seed')
    for name in ('train_digits', 'test_digits'):
      found = getattr(self, name)
      expect(
        len(found) == 2 and 1 <= found[0] <= found[1] <= _MOST_DIGITS,
        f'DigitsConfig.{name}: expected a least and a most number of digits, at most {_MOST_DIGITS}, found {found}',
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
  """A task and where its prepared form lies.

  Attributes:
    task: name of one of this library's tasks, or of a registered seqio task or mixture.
    directory: the prepared shards are in `directory/task`.
    inputs_length, targets_length: tokens that a training example is cut and padded to, end-of-sequence included.
    objective: what a task of running text trains; None for the task's own, which is span corruption for
      `c4_span_corruption`, language modelling for `c4_lm`, of this library's tasks in a mixture what they are
      registered with, and prefix language modelling for any other.
    vocabulary: the tokens.
    local_files: where the task `local_files` reads.
    local_folder: where the task `local_folder` reads.
    tfds_directory: where TensorFlow Datasets keeps C4 and the scientific papers, a folder or a `gs://` address; empty
      for its own default.
    digits: what `decimal_copy` and `long_addition` draw.
    max_examples: training examples that are kept at most, of each part of the corpus an equal share, taken evenly over
      it; 0 keeps all. Of a mixture it is as many of each task.
    packing: puts several training examples into one row, when the data are prepared; None gives each a row of its own,
      as examples that are held out have. `inputs_length` and `targets_length` are then those of a row, and what an
      example is cut to, as ever. Of running text only language modelling can be packed: a document that is longer than
      a row is cut into several examples, and no example has two documents.
    parts: pieces that the source is divided into. Each is prepared by itself and kept when the process dies, by
      whichever process; what is prepared depends on their number and not on the processes'.
  """

  task: str = 'docstring_summarization'
  directory: str = 'prepared'
  inputs_length: int = 128
  targets_length: int = 32
  objective: ObjectiveConfig | None = None
  vocabulary: VocabularyConfig = VocabularyConfig()
  local_files: LocalFilesConfig = LocalFilesConfig()
  local_folder: LocalFolderConfig = LocalFolderConfig()
  tfds_directory: str = ''
  digits: DigitsConfig = DigitsConfig()
  max_examples: int = 0
  packing: PackingConfig | None = None
  parts: int = 1

  _wide = ('max_examples',)

  def check(self):
    self._at_least(2, 'targets_length')
    self._at_least(0, 'max_examples')
    self._between(1, _MOST_PARTS, 'parts')
    expect(
      not self.max_examples or self.max_examples >= self.parts,
      f'DataConfig.max_examples: expected 0 or at least one a part ({self.parts}), found {self.max_examples}',
    )
    expect(bool(self.task), 'DataConfig.task: expected the name of a task, found an empty string')
    expect(bool(self.directory), 'DataConfig.directory: expected a folder, found an empty string')
    self.text_objective.check_lengths(self.inputs_length, self.targets_length, self.vocabulary.sentinels)
    if self.packing and (self.objective or self.task in _OBJECTIVES):
      self.check_packed_text()

  def check_packed_text(self) -> None:
    """Raises UserError unless running text can be packed."""
    found = type(self.text_objective).__name__
    expect(
      isinstance(self.text_objective, LMConfig),
      f'DataConfig.packing: expected None, or the objective LMConfig for running text, found {found}',
    )

  @property
  def text_objective(self) -> ObjectiveConfig:
    """The objective where the task is one of running text."""
    return self.objective or _OBJECTIVES.get(self.task, PrefixLMConfig())

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
