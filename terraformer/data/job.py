"""The job of preparing a task: finds the text, reads or trains its vocabulary, and holds what all parts share."""

import dataclasses
import hashlib
import importlib.util
import json
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from terraformer import config as config_lib
from terraformer.config import DataConfig, UserError, refused
from terraformer.config.objectives import ObjectiveConfig
from terraformer.data import leaks, store
from terraformer.data.addresses import normalized
from terraformer.data.report import bar
from terraformer.data.scoring import Scoring
from terraformer.data.source import Source, make_source
from terraformer.data.store import Origin
from terraformer.data.tokenizer import Tokenizer, train_vocabulary
from terraformer.files import write_whole
from terraformer.paths import make_folder

LONGEST = 65_536  # most tokens of a feature to store, unless the configuration asks for more


@dataclasses.dataclass(frozen=True)
class Component:
  """A task of a mixture, or a task by itself.

  Attributes:
    task: a deterministic seqio task.
    rate: its rate in the mixture.
    objective: the objective for its text, if the task gives documents while others give pairs.
    scoring: the scoring of a registered task, whose source is not in the config.
  """

  task: Any
  rate: float = 1.0
  objective: ObjectiveConfig | None = None
  scoring: Scoring = Scoring()

  @property
  def is_text(self) -> bool:
    """Whether the records are windows of running text."""
    return 'inputs' not in self.task.output_features


@dataclasses.dataclass(frozen=True)
class Job:
  """The settings that all parts of a task share.

  Attributes:
    folder: where the parts are until they are assembled.
    config: the configuration to prepare.
    components: the tasks of the mixture, or the one task.
    features: the features of its examples as read.
    run: `tasks.run`, which gives the examples of (task, split, part, parts).
    tokenizer: the tokenizer of the tasks.
    origin: what is known about the text before reading it.
    held_out: `leaks.keys` of the validation and test examples, if the source supports the comparison.

  Raises:
    UserError: if a task has no training split, its running text is to be packed but cannot be, or its spans need more
      sentinels than the vocabulary has.
  """

  folder: Path
  config: DataConfig
  components: Sequence[Component]
  features: Sequence[str]
  run: Callable[[Any, str, int, int], Iterator[Any]]
  tokenizer: Tokenizer
  origin: Origin
  held_out: frozenset[bytes] = frozenset()

  def __post_init__(self):
    for component in self.components:
      task = component.task
      if 'train' not in task.splits:
        raise UserError(f'task {task.name}: needs the split train, but has {", ".join(task.splits) or "no splits"}')
      if component.is_text:
        config = self.config_of(component)
        lengths = config.inputs_length, config.targets_length
        config.text_objective.check_lengths(*lengths, self.tokenizer.sentinels)
        if config.packing:
          config.check_packed_text()

  def config_of(self, component: Component) -> DataConfig:
    return self.config.with_objective(component.objective)

  @property
  def longest(self) -> int:
    """The number of tokens to which a feature of a pair is cut."""
    return max(LONGEST, self.config.inputs_length, self.config.targets_length)

  def part(self, number: int) -> Path:
    return self.folder / f'part-{number:05d}'

  def missing(self) -> list[int]:
    """Returns the numbers of the parts that are not written yet."""
    return [number for number in range(self.config.parts) if not self.part(number).exists()]


@dataclasses.dataclass(frozen=True)
class Text:
  """The text of a task, after its source was opened.

  Attributes:
    source: the data source.
    origin: what is known about the text.
    names: the names of its seqio tasks.
    tokenizer: the source's own or the configured tokenizer; None if a vocabulary must be trained.
    held_out: as in `Job`.
  """

  source: Source
  origin: Origin
  names: tuple[str, ...]
  tokenizer: Tokenizer | None
  held_out: frozenset[bytes] = frozenset()


def find_text(config: DataConfig, show_progress: bool, lock: Callable) -> Text:
  """Finds the text of a task, and reads it if it is small. Inside `lock`, one process runs at a time.

  Raises:
    UserError: if the text is missing or unusable, or TensorFlow and seqio are not installed.
  """
  require_tensorflow()
  given = Tokenizer.open(config.tokenizer.path, config.tokenizer.sentinels) if config.tokenizer.path else None
  source = make_source(config.source)
  source.open(show_progress)
  import_seqio(show_progress)
  with lock():
    source.build()
  tokenizer, origin = source.tokenizer(given), source.origin()
  return Text(source, origin, source.names(config), tokenizer, leaks.keys(source.held_out(show_progress)))


def plan(config: DataConfig, text: Text) -> str:
  """Returns a name for everything known to affect the result; parts of another plan are not reused."""
  tokenizer = dataclasses.replace(config.tokenizer, path=normalized(config.tokenizer.path))
  what = config_lib.to_dict(dataclasses.replace(config, directory='-', tokenizer=tokenizer))
  brought = text.tokenizer.fingerprint if text.tokenizer else ''
  known = [store.FORMAT, what | {'source': text.source.plan()}, text.names, dataclasses.asdict(text.origin), brought]
  return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def make_job(config: DataConfig, text: Text, folder: Path, show_progress: bool) -> Job:
  """Returns the job that all parts share; keeps the vocabulary in the folder for processes that resume.

  Raises:
    UserError: if the vocabulary cannot be trained, or the config does not fit the text.
  """
  path, sentinels = folder / store.VOCABULARY, config.tokenizer.sentinels
  if path.exists():
    tokenizer = Tokenizer.open(path, text.tokenizer.sentinels if text.tokenizer else sentinels)
  else:
    tokenizer = text.tokenizer or _trained(config, text.source.samples(), show_progress)
    aside = path.with_suffix('.partial')
    aside.write_bytes(tokenizer.model_bytes)
    aside.rename(path)
  components, run = text.source.components(config, path), import_seqio(show_progress).tasks.run
  return Job(folder, config, components, text.source.features, run, tokenizer, text.origin, text.held_out)


def _trained(config: DataConfig, samples: Iterable[str], show_progress: bool) -> Tokenizer:
  with bar(show_progress, f'training a vocabulary of {config.tokenizer.size}'):
    said = []
    trained = train_vocabulary(samples, config.tokenizer.size, config.tokenizer.sentinels, said.append)
  for line in said:  # after the bar, which would overwrite it
    print(line, file=sys.stderr)
  return trained


def write_vocabulary(config: DataConfig, path: Path, show_progress: bool) -> None:
  """Trains a vocabulary on the text of a source in this process and writes it.

  Raises:
    UserError: if the source cannot be read, or the vocabulary cannot be trained or written.
  """
  source = make_source(config.source)
  source.open(show_progress)
  source.build()
  tokenizer = _trained(config, source.samples(), show_progress)
  try:
    make_folder(path.parent)
    write_whole(path, tokenizer.model_bytes)
  except OSError as error:
    raise refused(path, 'write', error) from error


class Seqio(NamedTuple):
  """The modules that import TensorFlow."""

  registered: types.ModuleType
  tasks: types.ModuleType


def import_seqio(show_progress: bool) -> Seqio:
  """Imports these modules quietly; raises UserError as `require_tensorflow` does."""
  require_tensorflow()
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
  with bar(show_progress and 'tensorflow' not in sys.modules, 'loading TensorFlow'):
    from terraformer.data import registered, tasks
  return Seqio(registered, tasks)


def require_tensorflow() -> None:
  """Raises UserError unless TensorFlow and seqio are installed."""
  if not all(importlib.util.find_spec(name) for name in ('seqio', 'tensorflow')):
    raise UserError("preparing data needs seqio and TensorFlow: pip install 'terraformer-jax[data]'")
