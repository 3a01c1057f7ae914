"""The kinds of data sources, each with its own settings."""

import dataclasses
from pathlib import Path
from typing import ClassVar

from terraformer.config.base import Family, expect
from terraformer.config.words import flag

_MOST_DIGITS = 1_000_000  # maximum for a random number in memory


@dataclasses.dataclass(frozen=True)
class DataSource(Family):
  """The base class of data sources. `made_by` names a `data.source.Source`, which takes only the config.

  Attributes:
    task: default name of the task; `DataConfig.name` overrides it.
    located_by: fields that only locate the text; they may change after the data are prepared.
    needs_module: whether a user's module must register the source first; such a source has its own vocabulary.
  """

  task: ClassVar[str]
  located_by: ClassVar[tuple[str, ...]] = ()
  needs_module: ClassVar[bool] = False

  def require_text(self) -> None:
    """Raises UserError if the config does not say where the text is; data that are prepared do not need it."""


@dataclasses.dataclass(frozen=True)
class DocstringSummariesConfig(DataSource):
  """The docstrings of this machine's Python packages: the body is the source, the summary line is the target."""

  made_by: ClassVar = 'terraformer.data.docstrings:Summaries'
  task: ClassVar[str] = 'docstring_summarization'


@dataclasses.dataclass(frozen=True)
class DocstringTextConfig(DataSource):
  """The docstrings of this machine's Python packages, as running text."""

  made_by: ClassVar = 'terraformer.data.docstrings:Text'
  task: ClassVar[str] = 'docstring_text'


@dataclasses.dataclass(frozen=True)
class LocalFilesConfig(DataSource):
  """A user's own files: `.txt` (language modeling) or `.jsonl` (one object per line, with named fields).

  Attributes:
    train, validation, test: paths or glob patterns for each split, all of the same file type. If `validation` or `test`
      is empty, it gets a twentieth of the training examples, chosen by a hash of their text. A file of `train` must not
      be in another split.
    inputs_field: field of the source in `.jsonl`; empty makes a language modeling task from `targets_field`.
    targets_field: field of the target in `.jsonl`.
  """

  made_by: ClassVar = 'terraformer.data.local_files:LocalFiles'
  task: ClassVar[str] = 'local_files'

  train: tuple[str, ...] = ()
  validation: tuple[str, ...] = ()
  test: tuple[str, ...] = ()
  inputs_field: str = 'inputs'
  targets_field: str = 'targets'

  def check(self):
    for name in ('train', 'validation', 'test'):
      expect(all(getattr(self, name)), f'LocalFilesConfig.{name}: one of the paths is an empty string; remove it')

  def require_text(self):
    named = flag('LocalFilesConfig.train', "['FILE']")
    expect(bool(self.train), f'LocalFilesConfig.train is empty; name your .txt or .jsonl files with {named}')

  def is_same(self, name, old, new):
    if name not in ('train', 'validation', 'test'):
      return old == new
    return [Path(path).absolute() for path in old] == [Path(path).absolute() for path in new]


@dataclasses.dataclass(frozen=True)
class LocalFolderConfig(DataSource):
  """A folder of Parquet or JSONL files in the layout of Hugging Face `datasets`.

  Attributes:
    directory: the folder. The name of a file, or of a subfolder on the path to it, must contain its split as a word:
      `train` (`training`), `validation` (`valid`, `val`, `dev`) or `test` (`testing`, `eval`, `evaluation`).
    inputs_field: column of the source; empty makes a language modeling task from `targets_field`.
    targets_field: column of the target.
  """

  made_by: ClassVar = 'terraformer.data.local_folder:LocalFolder'
  task: ClassVar[str] = 'local_folder'
  located_by: ClassVar[tuple[str, ...]] = ('directory',)

  directory: str = ''
  inputs_field: str = 'inputs'
  targets_field: str = 'targets'


@dataclasses.dataclass(frozen=True)
class _DigitsConfig(DataSource):
  """Settings of the paper's algorithmic tasks, which first sample a number of digits and then a number.

  Attributes:
    train_digits: minimum and maximum number of digits, in training and validation.
    test_digits: minimum and maximum number of digits in the test split.
    train_examples, held_out_examples: number of examples in training, and in validation and test each.
    seed: seed of the random numbers.
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
        f'{type(self).__name__}.{name}: expected a minimum and a maximum number of digits from 1 to {_MOST_DIGITS}, '
        f'found {found}',
      )


@dataclasses.dataclass(frozen=True)
class DecimalCopyConfig(_DigitsConfig):
  """Copying a number, `427` to `427` (section 4.3 of the paper)."""

  made_by: ClassVar = 'terraformer.data.digits:DecimalCopy'
  task: ClassVar[str] = 'decimal_copy'


@dataclasses.dataclass(frozen=True)
class LongAdditionConfig(_DigitsConfig):
  """Adding two numbers, `58+427` to `485` (section 4.3 of the paper). It has the fields of `DecimalCopyConfig`, too.

  Attributes:
    least_first: whether numbers are written from their least significant digit on, `85+724` to `584`, as in the
      authors' code. A carry is then known before the digit that it changes.
  """

  made_by: ClassVar = 'terraformer.data.digits:LongAddition'
  task: ClassVar[str] = 'long_addition'

  least_first: bool = False


@dataclasses.dataclass(frozen=True)
class TfdsConfig(DataSource):
  """A data set of TensorFlow Datasets, which downloads and builds it if it is missing and can be built.

  Attributes:
    dataset: name, configuration and version of the data set, such as `c4/en:3.1.0`.
    data_dir: where TensorFlow Datasets stores it, a folder or a `gs://` address; empty for that library's default.
    inputs_field: feature of the source; empty makes a language modeling task from `targets_field`.
    targets_field: feature of the target.
  """

  made_by: ClassVar = 'terraformer.data.seqio_sources:Tfds'
  located_by: ClassVar[tuple[str, ...]] = ('data_dir',)

  dataset: str = ''
  data_dir: str = ''
  inputs_field: str = ''
  targets_field: str = 'text'

  def check(self):
    expect(
      bool(self.targets_field),
      f'TfdsConfig.targets_field is empty; {flag("TfdsConfig.targets_field", repr("FEATURE"))} sets it',
    )

  def require_text(self):
    expect(bool(self.dataset), f'TfdsConfig.dataset is empty; {flag("TfdsConfig.dataset", repr("NAME"))} sets it')

  @property
  def task(self) -> str:
    """The name and configuration of the data set, without the version."""
    return self.dataset.partition(':')[0].replace('/', '_')


@dataclasses.dataclass(frozen=True)
class SeqioTaskConfig(DataSource):
  """A seqio task or mixture that a user's module registers (`--module`), with its own vocabulary.

  Attributes:
    name: name in seqio's registry.
  """

  made_by: ClassVar = 'terraformer.data.seqio_sources:SeqioTask'
  needs_module: ClassVar[bool] = True

  name: str = ''

  @property
  def task(self) -> str:
    return self.name
