"""Where the text of a task comes from: what every data source answers, whatever it reads.

A config of the family `DataSource` names its source (`made_by`). A source of the user's own derives from `Source`, and
needs `features` and `read` alone. Nothing here imports TensorFlow; what does so, does it when it is asked.
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
from terraformer.data.store import FEATURES, RECORD, SPLITS, Manifest, Origin
from terraformer.data.tokenizer import Tokenizer

if TYPE_CHECKING:
  from terraformer.data.job import Component

Example = dict[str, str]  # text by feature, and under `record` where it stands, in a source that tells

_TEXT_BYTES = 20_000_000  # that a vocabulary is trained on at most


class Source:
  """A source of texts.

  Attributes:
    config: of its own kind.
    tells_where: whether every example says, under `record`, where it stands: the file and line, or the like.
    scoring: the scores and the baselines of its texts, of a task that has inputs.
  """

  tells_where: ClassVar[bool] = False
  scoring: ClassVar[Scoring] = Scoring()

  def __init__(self, config: DataSource):
    self.config = config

  # What a source of the user's own says of itself.

  @property
  def features(self) -> tuple[str, ...]:
    """`inputs` and `targets`, or `targets` alone, which makes a task of running text.

    Raises:
      UserError: if its files do not tell.
    """
    return FEATURES

  @property
  def splits(self) -> Sequence[str]:
    """Those of `train`, `validation` and `test` that it has."""
    return SPLITS

  def read(self, split: str, part: int, parts: int) -> Iterator[Example]:
    """The examples of every `parts`-th piece of a split from number `part` on; over all parts each example once.

    Raises:
      UserError: if they cannot be read.
    """
    raise NotImplementedError(f'{type(self).__name__}.read')

  def count(self, split: str) -> int | None:
    """The examples of a split; None where nobody knows before they are read."""
    return None

  def origin(self) -> Origin:
    """What is known of the text before it is read.

    Raises:
      UserError: if it cannot be read.
    """
    return Origin()

  @property
  def metric(self) -> Callable[[Sequence[str], Sequence[str]], dict[str, float]]:
    """The metric function of its seqio task, of targets and predictions; of a task that has inputs."""
    from terraformer.data import scores  # not above: it takes long, and training does without it

    return scores.rouge if self.scoring.rouge else scores.exact_match

  # What preparing asks for. The answers here are those of a source that only reads texts.

  def open(self, show_progress: bool) -> None:
    """Finds the text, and reads it if it is small, so that what is wrong with it is told before TensorFlow is loaded.

    Raises:
      UserError: if it is not there or not usable.
    """

  def build(self) -> None:
    """Builds what has to be there before the text can be read; one process at a time does so.

    Raises:
      UserError: if it cannot.
    """

  def samples(self) -> Iterator[str]:
    """The beginning of its training text, example by example: enough to train a vocabulary on."""
    return beginning('\n'.join(text_of(example).values()) for example in self.read('train', 0, 1))

  def held_out(self, show_progress: bool) -> Iterable[Example]:
    """The examples of validation and test, with which those of training are compared."""
    return (example for split in self.splits if split != 'train' for example in self.read(split, 0, 1))

  def names(self, config: DataConfig) -> tuple[str, ...]:
    """Of the seqio tasks that it has."""
    return (config.task,)

  def scoring_of(self, task: str, manifest: Manifest) -> Scoring:
    """The scoring of one of its tasks, as far as it is known. It takes neither the text nor TensorFlow."""
    return self.scoring

  def tokenizer(self, given: Tokenizer | None) -> Tokenizer | None:
    """That of the prepared data: the one that the config names, or the source's own; None where one is to be trained.

    Raises:
      UserError: if the one that is given is not the source's own.
    """
    return given

  def components(self, config: DataConfig, vocabulary_path: Path) -> 'list[Component]':
    """The seqio tasks, as they are prepared. Imports TensorFlow."""
    from terraformer.data import registered

    return [registered.component(config, self, vocabulary_path)]

  def as_seqio(self) -> tuple[Any, dict[str, str]]:
    """The source as a `seqio.DataSource`, and which field of it is which feature. Imports TensorFlow."""
    from terraformer.data import tasks

    return tasks.Texts(self), {name: name for name in self.features}

  def plan(self) -> dict[str, Any]:
    """What of its config bears on the result, as JSON values: two names of one file are the same."""
    return to_dict(self.config)

  def is_as_prepared(self, manifest: Manifest) -> bool:
    """Whether it still has the files that the data were prepared from, as far as that is soon known; also where it has
    none at all, since data are read where they were not prepared."""
    return True

  def require_unchanged(self, folder: Path, manifest: Manifest) -> None:
    """Raises UserError unless it has what was prepared in a folder, as the user's modules define it in this process."""
    if self.origin().corpus_fingerprint != manifest.corpus_fingerprint:
      raise UserError(
        f'{folder}: expected the text that it was prepared from, found another; remove the folder to go on'
      )


class HeldSource(Source):
  """A source whose text is small enough for the memory: a subclass has `_load`, which is called once."""

  tells_where = True

  def __init__(self, config: DataSource):
    super().__init__(config)
    self._held: tuple[dict[str, list[Example]], Origin] | None = None

  def _load(self, show_progress: bool) -> tuple[dict[str, list[Example]], Origin]:
    """The examples of each split, and what is known of them.

    Raises:
      UserError: for whatever is wrong with a user's file.
    """
    raise NotImplementedError(f'{type(self).__name__}._load')

  def open(self, show_progress: bool = False) -> None:
    if self._held is None:
      self._held = self._load(show_progress)

  @property
  def examples(self) -> dict[str, list[Example]]:
    """By split."""
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
  """The source that a config asks for."""
  return maker(config)(config)


def beginning(texts: Iterable[str]) -> Iterator[str]:
  """The first texts, up to as many as a vocabulary is trained on."""
  read = 0
  for text in texts:
    yield text
    read += len(text.encode())
    if read > _TEXT_BYTES:
      return


def text_of(example: Mapping[str, str]) -> Example:
  """An example without the mark of where it stands."""
  return {name: text for name, text in example.items() if name != RECORD}


def fingerprint_of(examples: Mapping[str, Sequence[Example]]) -> str:
  """sha256 of the texts of each split."""
  texts = {split: list(map(text_of, examples[split])) for split in SPLITS}
  return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()


def joined(origins: Mapping[str, Origin]) -> Origin:
  """The origin of a mixture of these tasks."""
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
