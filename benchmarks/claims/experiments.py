"""The experiments, one a line: what differs from the section's gin file."""

import dataclasses
import fnmatch
from collections.abc import Iterator
from pathlib import Path

from terraformer.config import RunConfig, UserError
from terraformer.configure import load_config

HERE = Path(__file__).parent
_HIGHEST_SEED = 3


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A training run and what is measured at its end.

  Attributes:
    name: name of its folder and of its file of results.
    gin: gin file beside this module.
    bindings: bindings of gin without their `config.`, which take precedence over the file.
    measure: `losses`, or `lengths` for exact matches by number of digits.
    data: name of the folder of its prepared data; experiments with the same data share one.
    hours: estimated time on two cores (`scale` cpu) or on one GPU.
    scale: the machine it is meant for, cpu or gpu.
    lengths: numbers of digits to measure.
    numbers: how many numbers of each length.
  """

  name: str
  gin: str
  bindings: tuple[str, ...]
  measure: str
  data: str
  hours: float
  scale: str = 'cpu'
  lengths: tuple[int, ...] = ()
  numbers: int = 200

  @property
  def seed(self) -> int:
    """The last part of the name."""
    return int(self.name.rpartition('-')[2])

  def run(self, folder: Path) -> RunConfig:
    """Returns the configuration of its training run, with data in `folder/data`."""
    bindings = (
      *self.bindings,
      f'TrainConfig.seed = {self.seed}',
      f'DataConfig.directory = {str(folder / "data" / self.data)!r}',
    )
    return load_config(HERE / self.gin, bindings=[f'config.{binding}' for binding in bindings])


def chosen(patterns: str, scale: str) -> list[Experiment]:
  """Returns the experiments of a scale whose names match one of several patterns, in the order of the list.

  Raises:
    UserError: if a pattern matches none.
  """
  all_of_scale = [each for each in EXPERIMENTS if each.scale == scale]
  if not patterns:
    return all_of_scale
  for pattern in patterns.split(','):
    if not fnmatch.filter([each.name for each in all_of_scale], pattern):
      raise UserError(f'--only={pattern}: no experiment of the scale {scale} has this name; --list shows all')
  return [each for each in all_of_scale if any(fnmatch.fnmatch(each.name, one) for one in patterns.split(','))]


# --- Section 4.3: numbers that are longer than those in training -----------------------------------------------------

_NO_SRU = ('BlockConfig.recurrence = None',)
_TABLE = ('TerraformerConfig.positions = @config.TablePositionsConfig()',)
_DENSE = (
  'BlockConfig.projection = @config.DenseProjectionConfig()',
  'BlockConfig.feed_forward = @config.DenseFFConfig()',
  'TerraformerConfig.output = @config.DenseOutputConfig()',
)
_DIGITS = {
  'sru': (),
  'no_sru': _NO_SRU,
  'dense': (*_DENSE, 'DenseFFConfig.d_ff = 512', *_NO_SRU),
  'dense_sru': (*_DENSE, 'DenseFFConfig.d_ff = 512'),
  'table': _TABLE,
}
_ADDITION = (
  'DataConfig.source = @config.LongAdditionConfig()',
  'LongAdditionConfig.train_digits = (1, 16)',
  'LongAdditionConfig.test_digits = (32, 38)',
  'LongAdditionConfig.train_examples = 200000',
  'DataConfig.inputs_length = 34',
  'DataConfig.targets_length = 18',
)
_LENGTHS = (*range(2, 32, 2), *range(32, 39), 40, 44, 48)


def _digits() -> Iterator[Experiment]:
  for seed in range(_HIGHEST_SEED):
    for name, bindings in _DIGITS.items():
      yield Experiment(f'copy-{name}-{seed}', 'digits.gin', bindings, 'lengths', 'copy', 0.2, lengths=_LENGTHS)


# --- Figure 1: sparse layers at equal parameters ---------------------------------------------------------------------

_FF = (
  'BlockConfig.feed_forward = @config.SparseFFConfig()',
  'SparseFFConfig.block_size = 16',
  'SparseFFConfig.rank = 32',
)
_QKV = ('BlockConfig.projection = @config.SparseProjectionConfig()', 'SparseProjectionConfig.n_modules = 8')
_OUTPUT = ('LanguageModelConfig.output = @config.SparseOutputConfig()', 'SparseOutputConfig.n_modules = 4')
_SWITCH = ('BlockConfig.feed_forward = @config.SwitchFFConfig()', 'SwitchFFConfig.n_experts = 16')
# d_ff gives each as many parameters as the dense model has.
_TEXT = {
  'dense': ('DenseFFConfig.d_ff = 512',),
  'ff_qkv': (*_FF, *_QKV, 'SparseFFConfig.d_ff = 640'),
  'ff': (*_FF, 'SparseFFConfig.d_ff = 448'),
  'qkv': (*_QKV, 'DenseFFConfig.d_ff = 736'),
  'ff_qkv_output': (*_FF, *_QKV, *_OUTPUT, 'SparseFFConfig.d_ff = 720'),
  'switch': (*_SWITCH, 'SwitchFFConfig.d_ff = 512'),
}


def _text() -> Iterator[Experiment]:
  for seed in range(_HIGHEST_SEED):
    for name, bindings in _TEXT.items():
      yield Experiment(f'text-{name}-{seed}', 'text.gin', bindings, 'losses', 'text', 0.3)


# One seed of everything comes first.
EXPERIMENTS = tuple(sorted((*_digits(), *_text()), key=lambda each: each.seed))
