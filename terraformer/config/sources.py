"""Where text comes from: the kinds of data sources, each with its own settings."""

import dataclasses
from pathlib import Path
from typing import ClassVar

from terraformer.config.base import Family, expect

_MOST_DIGITS = 1_000_000  # of a number that is drawn in memory


@dataclasses.dataclass(frozen=True)
class DataSource(Family):
  """The base class of data sources. `made_by` names a `data.source.Source`, which takes the config alone.

  Attributes:
    task: the name of its task, unless `DataConfig.name` gives another.
    located_by: the fields that only say where the text lies. They may change after the data are prepared.
    needs_module: whether a module of the user's has to register it first; it then brings its own vocabulary.
  """

  task: ClassVar[str]
  located_by: ClassVar[tuple[str, ...]] = ()
  needs_module: ClassVar[bool] = False


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
  """A user's own files: `.txt` (language modelling) or `.jsonl` (one object a line, with named fields).

  Attributes:
    train, validation, test: paths or glob patterns of each split, all of one kind. Where `validation` or `test` is
      empty, a twentieth of the training examples, chosen by a hash of their text, takes its place. A file of `train` in
      another split is refused.
    inputs_field: the source's field in `.jsonl`; empty makes a language-modelling task of `targets_field`.
    targets_field: the target's field in `.jsonl`.
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
      expect(
        all(getattr(self, name)), f'LocalFilesConfig.{name}: expected paths or patterns, found an empty one among them'
      )

  def is_same(self, name, old, new):
    if name not in ('train', 'validation', 'test'):
      return old == new
    return [Path(path).absolute() for path in old] == [Path(path).absolute() for path in new]


@dataclasses.dataclass(frozen=True)
class LocalFolderConfig(DataSource):
  """A folder of Parquet or JSONL files, laid out as Hugging Face `datasets` writes and reads them.

  Attributes:
    directory: the folder. A file belongs to the split that stands in its name, or in that of a folder between, as a
      word: `train` (`training`), `validation` (`valid`, `val`, `dev`) or `test` (`testing`, `eval`, `evaluation`).
    inputs_field: the source's column; empty makes a language-modelling task of `targets_field`.
    targets_field: the target's column.
  """

  made_by: ClassVar = 'terraformer.data.local_folder:LocalFolder'
  task: ClassVar[str] = 'local_folder'
  located_by: ClassVar[tuple[str, ...]] = ('directory',)

  directory: str = ''
  inputs_field: str = 'inputs'
  targets_field: str = 'targets'


@dataclasses.dataclass(frozen=True)
class _DigitsConfig(DataSource):
  """Settings of the paper's algorithmic tasks: numbers are drawn with a length that is drawn first.

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
        f'{type(self).__name__}.{name}: expected a least and a most number of digits, at most {_MOST_DIGITS}, '
        f'found {found}',
      )


@dataclasses.dataclass(frozen=True)
class DecimalCopyConfig(_DigitsConfig):
  """Copying a number, `427` to `427` (section 4.3 of the paper). Its fields are those of `LongAdditionConfig`."""

  made_by: ClassVar = 'terraformer.data.digits:DecimalCopy'
  task: ClassVar[str] = 'decimal_copy'


@dataclasses.dataclass(frozen=True)
class LongAdditionConfig(_DigitsConfig):
  """Adding two numbers, `58+427` to `485` (section 4.3 of the paper). Its fields are those of `DecimalCopyConfig`."""

  made_by: ClassVar = 'terraformer.data.digits:LongAddition'
  task: ClassVar[str] = 'long_addition'


@dataclasses.dataclass(frozen=True)
class TfdsConfig(DataSource):
  """A data set of TensorFlow Datasets, which downloads and builds it where it is not there and can be.

  Attributes:
    dataset: its name, configuration and version, such as `c4/en:3.1.0`.
    data_dir: where TensorFlow Datasets keeps it, a folder or a `gs://` address; empty for the library's own default.
    inputs_field: the source's feature; empty makes a language-modelling task of `targets_field`.
    targets_field: the target's feature.
  """

  made_by: ClassVar = 'terraformer.data.seqio_sources:Tfds'
  located_by: ClassVar[tuple[str, ...]] = ('data_dir',)

  dataset: str = ''
  data_dir: str = ''
  inputs_field: str = ''
  targets_field: str = 'text'

  def check(self):
    expect(bool(self.targets_field), 'TfdsConfig.targets_field: expected the name of a feature, found an empty string')

  @property
  def task(self) -> str:
    """The data set's name and configuration, without the version."""
    return self.dataset.partition(':')[0].replace('/', '_')


@dataclasses.dataclass(frozen=True)
class SeqioTaskConfig(DataSource):
  """A seqio task or mixture that a module of the user's registers (`--module`); it brings its own vocabulary.

  Attributes:
    name: in seqio's registry.
  """

  made_by: ClassVar = 'terraformer.data.seqio_sources:SeqioTask'
  needs_module: ClassVar[bool] = True

  name: str = ''

  @property
  def task(self) -> str:
    return self.name
