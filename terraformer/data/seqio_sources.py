"""Sources that TensorFlow Datasets and seqio read themselves. TensorFlow is imported on first use."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terraformer.config import DataConfig, DataSource, UserError
from terraformer.data.local_files import fields_of
from terraformer.data.scoring import Scoring
from terraformer.data.source import Example, Source, beginning, joined
from terraformer.data.store import Manifest, Origin
from terraformer.data.tokenizer import Tokenizer

if TYPE_CHECKING:
  from terraformer.data.job import Component


class Tfds(Source):
  """The data set that a `TfdsConfig` names."""

  def __init__(self, config: DataSource):
    super().__init__(config)
    self._source: Any = None

  @property
  def features(self) -> tuple[str, ...]:
    return tuple(fields_of(self.config))

  @property
  def splits(self) -> list[str]:
    return list(self.as_seqio()[0].splits)

  def as_seqio(self) -> tuple[Any, dict[str, str]]:
    if self._source is None:
      from terraformer.data import tasks

      self._source = tasks.tfds_source(self.config.dataset, self.config.data_dir)
    return self._source, fields_of(self.config)

  def open(self, show_progress: bool) -> None:
    self.config.require_text()

  def build(self) -> None:
    from terraformer.data import tasks

    where = self.config.data_dir or 'its default folder (TfdsConfig.data_dir)'
    tasks.build_tfds(self.as_seqio()[0], self.config.dataset, where)

  def samples(self) -> Iterator[str]:
    from terraformer.data import tasks

    return beginning(tasks.training_texts(*self.as_seqio()))

  def held_out(self, show_progress: bool) -> tuple[Example, ...]:
    return ()  # the splits are published, and too large for memory

  def origin(self) -> Origin:
    from terraformer.data import tasks

    return tasks.origin_of(self.as_seqio()[0])


class SeqioTask(Source):
  """The task or mixture that a `SeqioTaskConfig` names. It must be registered in this process."""

  @property
  def _task(self) -> Any:
    from terraformer.data import tasks

    return tasks.find(self.config.name)

  @property
  def features(self) -> tuple[str, ...]:
    return tuple(self._task.output_features)

  @property
  def splits(self) -> list[str]:
    return list(self._task.splits)

  def held_out(self, show_progress: bool) -> tuple[Example, ...]:
    return ()

  def samples(self) -> tuple[str, ...]:
    return ()  # it has a vocabulary

  def names(self, config: DataConfig) -> tuple[str, ...]:
    return tuple(self._origins())

  def scoring_of(self, task: str, manifest: Manifest) -> Scoring:
    return manifest.scoring_of(task)

  def origin(self) -> Origin:
    return joined(self._origins())

  def _origins(self) -> dict[str, Origin]:
    from terraformer.data import registered, tasks

    return {one.task.name: tasks.origin_of(one.task.source) for one in registered.components(self._task)}

  def tokenizer(self, given: Tokenizer | None) -> Tokenizer:
    from terraformer.data import tasks

    own = tasks.vocabulary_of(self._task)
    if given and Tokenizer.from_bytes(given.model_bytes, own.sentinels).fingerprint != own.fingerprint:
      raise UserError(f'TokenizerConfig.path: not the vocabulary of the task {self.config.name}; leave it empty')
    return own

  def components(self, config: DataConfig, vocabulary_path: Path) -> 'list[Component]':
    from terraformer.data import registered

    return registered.components(self._task)

  def require_unchanged(self, folder: Path, manifest: Manifest) -> None:
    from terraformer.data import tasks

    rates = {task.name: rate for task, rate in tasks.weighted(self._task)}
    prepared = {name: task['rate'] for name, task in manifest.tasks.items()}
    if rates != prepared:
      raise UserError(f'{folder}: expected the tasks and rates {rates}, found {prepared}; remove the folder')
    super().require_unchanged(folder, manifest)
