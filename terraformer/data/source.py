"""The interface of data sources, which provide the text of a task.

A config of the family `DataSource` names its source (`made_by`). A user's source derives from `Source` and only needs
`features` and `read`. This module does not import TensorFlow; methods that need it import it when called.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from terraformer.config import DataConfig, DataSource, UserError, to_dict
from terraformer.config.base import maker
from terraformer.data.scoring import Scoring
from terraformer.data.store import ELSEWHERE, FEATURES, RECORD, SPLITS, Manifest, Origin
from terraformer.data.tokenizer import Tokenizer

if TYPE_CHECKING:
  from terraformer.data.job import Component

Example = dict[str, str]  # text by feature; a source may give its location under `record`

_TEXT_BYTES = 20_000_000  # most text for training a vocabulary


class Source:
  """A source of texts.

  Attributes:
    config: the config of this source.
    tells_where: whether every example gives its location under `record`, such as the file and line.
    scoring: the scores and baselines of its texts, for a task with inputs.
  """

  tells_where: ClassVar[bool] = False
  scoring: ClassVar[Scoring] = Scoring()

  def __init__(self, config: DataSource):
    self.config = config

  # Methods for a user's source to define.

  @property
  def features(self) -> tuple[str, ...]:
    """Returns `inputs` and `targets`, or only `targets` for a task of running text.

    Raises:
      UserError: if its files do not determine the features.
    """
    return FEATURES

  @property
  def splits(self) -> Sequence[str]:
    """Returns the splits that it has, among `train`, `validation` and `test`."""
    return SPLITS

  def read(self, split: str, part: int, parts: int) -> Iterator[Example]:
    """Yields the examples of every `parts`-th piece of a split, from number `part` on. No two parts share an example.

    Raises:
      UserError: if they cannot be read.
    """
    raise NotImplementedError(f'{type(self).__name__}.read')

  def count(self, split: str) -> int | None:
    """Returns the number of examples in a split, or None if it is unknown before reading them."""
    return None

  def origin(self) -> Origin:
    """Returns what is known about the text before reading it.

    Raises:
      UserError: if it cannot be read.
    """
    return Origin()

  @property
  def metric(self) -> Callable[[Sequence[str], Sequence[str]], dict[str, float]]:
    """Returns the metric function (targets, predictions) of its seqio task, for a task with inputs."""
    from terraformer.data import scores  # not above: the import is slow, and training does not need it

    return scores.rouge if self.scoring.rouge else scores.exact_match

  # Methods that preparation calls, with defaults for a source that only reads texts.

  def open(self, show_progress: bool) -> None:
    """Finds the text, and reads it if it is small, so that errors appear before TensorFlow is loaded.

    Raises:
      UserError: if the text is missing or unusable.
    """

  def build(self) -> None:
    """Builds whatever reading the text requires; one process at a time calls this.

    Raises:
      UserError: if the build fails.
    """

  def samples(self) -> Iterator[str]:
    """Yields the start of its training text, example by example: enough to train a vocabulary."""
    return beginning('\n'.join(text_of(example).values()) for example in self.read('train', 0, 1))

  def held_out(self, show_progress: bool) -> Iterable[Example]:
    """Returns the validation and test examples, with which training examples are compared."""
    return (example for split in self.splits if split != 'train' for example in self.read(split, 0, 1))

  def names(self, config: DataConfig) -> tuple[str, ...]:
    """Returns the names of its seqio tasks."""
    return (config.task,)

  def scoring_of(self, task: str, manifest: Manifest) -> Scoring:
    """Returns the scoring of one of its tasks, as far as known. It needs neither the text nor TensorFlow."""
    return self.scoring

  def tokenizer(self, given: Tokenizer | None) -> Tokenizer | None:
    """Returns the tokenizer for the prepared data: the configured one or the source's own; None to train one.

    Raises:
      UserError: if the given tokenizer is not the source's own.
    """
    return given

  def components(self, config: DataConfig, vocabulary_path: Path) -> 'list[Component]':
    """Returns the seqio tasks to prepare. Imports TensorFlow."""
    from terraformer.data import registered

    return [registered.component(config, self, vocabulary_path)]

  def as_seqio(self) -> tuple[Any, dict[str, str]]:
    """Returns the source as a `seqio.DataSource`, and its fields by feature. Imports TensorFlow."""
    from terraformer.data import tasks

    return tasks.Texts(self), {name: name for name in self.features}

  def plan(self) -> dict[str, Any]:
    """Returns the config values that affect the result, as JSON; two names of one file give the same value."""
    return to_dict(self.config)

  def is_as_prepared(self, manifest: Manifest) -> bool:
    """Whether the source files are those of the prepared data, as far as a quick check can say; also true if there are
    no source files, since data may be read on another machine."""
    return True

  def require_unchanged(self, folder: Path, manifest: Manifest) -> None:
    """Raises UserError unless the source, as the user's modules define it now, matches the prepared folder."""
    if self.origin().corpus_fingerprint != manifest.corpus_fingerprint:
      raise UserError(f'{folder}: the source text has changed since preparation; {ELSEWHERE}')


class HeldSource(Source):
  """A source whose text fits into memory; a subclass defines `_load`, which is called once."""

  tells_where = True

  def __init__(self, config: DataSource):
    super().__init__(config)
    self._held: tuple[dict[str, list[Example]], Origin] | None = None

  def _load(self, show_progress: bool) -> tuple[dict[str, list[Example]], Origin]:
    """Returns the examples of each split, and their origin.

    Raises:
      UserError: if anything is wrong with a user's file.
    """
    raise NotImplementedError(f'{type(self).__name__}._load')

  def open(self, show_progress: bool = False) -> None:
    if self._held is None:
      self._held = self._load(show_progress)

  @property
  def examples(self) -> dict[str, list[Example]]:
    """The examples by split."""
    self.open()
    return self._held[0]

  def read(self, split: str, part: int, parts: int) -> Iterator[Example]:
    return iter(self.examples[split][part::parts])

  def count(self, split: str) -> int:
    return len(self.examples[split])

  def origin(self) -> Origin:
    self.open()
    return self._held[1]

  def samples(self) -> list[str]:
    return ['\n'.join(text_of(example).values()) for example in self.examples['train']]


def make_source(config: DataSource) -> Source:
  """Returns the source that a config names."""
  return maker(config)(config)


def beginning(texts: Iterable[str]) -> Iterator[str]:
  """Yields the first texts, up to the amount needed to train a vocabulary."""
  read = 0
  for text in texts:
    yield text
    read += len(text.encode())
    if read > _TEXT_BYTES:
      return


def text_of(example: Mapping[str, str]) -> Example:
  """Returns an example without its location."""
  return {name: text for name, text in example.items() if name != RECORD}


def fingerprint_of(examples: Mapping[str, Sequence[Example]]) -> str:
  """Returns the sha256 of the texts of each split."""
  texts = {split: list(map(text_of, examples[split])) for split in SPLITS}
  return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()


def joined(origins: Mapping[str, Origin]) -> Origin:
  """Returns the origin of a mixture of these tasks."""
  known = {name: origin.corpus_fingerprint for name, origin in origins.items() if origin.corpus_fingerprint}
  dropped: dict[str, int] = {}
  for reason, count in itertools.chain.from_iterable(origin.dropped.items() for origin in origins.values()):
    dropped[reason] = dropped.get(reason, 0) + count
  return Origin(
    hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest() if known else '',
    {path: digest for origin in origins.values() for path, digest in origin.sources.items()},
    dropped,
    {reason: first for origin in reversed(origins.values()) for reason, first in origin.first_dropped.items()},
  )
