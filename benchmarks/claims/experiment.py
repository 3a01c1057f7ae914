"""What an experiment is."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from terraformer.config import RunConfig
from terraformer.configure import load_config

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A training run and what is measured at its end.

  Attributes:
    name: name of its folder and of its file of results; the last part is the seed.
    gin: gin file beside this module.
    bindings: bindings of gin without their `config.`, which take precedence over the file.
    data: name of the folder of its prepared data; experiments with the same data share one.
    hours: estimated time on two cores (`scale` cpu) or on one GPU.
    scale: the machine it is meant for, cpu or gpu.
    lengths: numbers of digits for which exact matches are measured; none for text.
    numbers: how many numbers of each length.
    write_text: writes the text that the data are prepared from into that folder, if the source does not bring it.
  """

  name: str
  gin: str
  bindings: tuple[str, ...]
  data: str
  hours: float
  scale: str = 'cpu'
  lengths: tuple[int, ...] = ()
  numbers: int = 200
  write_text: Callable[[Path], None] | None = None

  @property
  def variant(self) -> str:
    """The name without the seed."""
    return self.name.rpartition('-')[0]

  @property
  def seed(self) -> int:
    """The last part of the name."""
    return int(self.name.rpartition('-')[2])

  def data_folder(self, folder: Path) -> Path:
    """Returns the folder of its data, given that of all runs."""
    return folder / 'data' / self.data

  def run(self, folder: Path) -> RunConfig:
    """Returns the configuration of its training run, given the folder of all runs."""
    bindings = (
      *self.bindings,
      f'TrainConfig.seed = {self.seed}',
      f'DataConfig.directory = {str(self.data_folder(folder))!r}',
    )
    if self.write_text:
      paths = [str(self.data_folder(folder) / f'{split}.jsonl') for split in ('train', 'validation')]
      bindings += tuple(f'LocalFilesConfig.{Path(path).stem} = [{path!r}]' for path in paths)
    return load_config(HERE / self.gin, bindings=[f'config.{binding}' for binding in bindings])
