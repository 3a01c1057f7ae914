"""What is to be prepared, as all parts of it share it."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from terraformer.config import DataConfig, UserError
from terraformer.config.objectives import ObjectiveConfig
from terraformer.data.store import Origin
from terraformer.data.vocabulary import Vocabulary

LONGEST = 65_536  # tokens of a feature that are stored, unless the configuration asks for more


@dataclasses.dataclass(frozen=True)
class Component:
  """A task of a mixture, or one alone.

  Attributes:
    task: a seqio task, which does the same every time.
    rate: of the mixture.
    objective: what its text trains when it is read, of a task that gives documents where the others give pairs.
  """

  task: Any
  rate: float = 1.0
  objective: ObjectiveConfig | None = None

  @property
  def is_text(self) -> bool:
    """Whether its records are windows of running text."""
    return 'inputs' not in self.task.output_features


@dataclasses.dataclass(frozen=True)
class Job:
  """What all parts of a task share.

  Attributes:
    folder: where the parts are, until they are assembled.
    config: what is prepared.
    components: of the mixture, or the task alone.
    features: of its examples when they are read.
    run: of the tasks module: the examples of (task, split, part, parts).
    vocabulary: the tasks'.
    origin: what is known of the text beforehand.
    held_out: `leaks.keys` of the examples of validation and test, of a source that is compared with them.

  Raises:
    UserError: if a task has no training split, or is one of running text that cannot be packed, and is to be, or whose
      spans want more sentinels than the vocabulary has.
  """

  folder: Path
  config: DataConfig
  components: Sequence[Component]
  features: Sequence[str]
  run: Callable[[Any, str, int, int], Iterator[Any]]
  vocabulary: Vocabulary
  origin: Origin
  held_out: frozenset[bytes] = frozenset()

  def __post_init__(self):
    for component in self.components:
      task = component.task
      if 'train' not in task.splits:
        raise UserError(f'task {task.name}: expected the split train, found {", ".join(task.splits) or "none"}')
      if component.is_text:
        config = self.config_of(component)
        lengths = config.inputs_length, config.targets_length
        config.text_objective.check_lengths(*lengths, self.vocabulary.sentinels)
        if config.packing:
          config.check_packed_text()

  def config_of(self, component: Component) -> DataConfig:
    return self.config.with_objective(component.objective)

  @property
  def longest(self) -> int:
    """Tokens that a feature of a pair is cut to."""
    return max(LONGEST, self.config.inputs_length, self.config.targets_length)

  def part(self, number: int) -> Path:
    return self.folder / f'part-{number:05d}'

  def missing(self) -> list[int]:
    """Numbers of the parts that are not written yet."""
    return [number for number in range(self.config.parts) if not self.part(number).exists()]
