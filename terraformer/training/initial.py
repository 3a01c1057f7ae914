"""Initializes parameters from another run, and reports which ones were taken."""

import dataclasses
import fnmatch
from pathlib import Path

import jax

from terraformer.config import InitFromConfig, UserError
from terraformer.config.words import flag
from terraformer.layers.parameter import ModelFacts
from terraformer.models.parameters import Params, describe, flatten, unflatten
from terraformer.training import checkpoint, hosts


@dataclasses.dataclass(frozen=True)
class InitReport:
  """The outcome for every parameter.

  Attributes:
    source: the checkpoint's folder.
    matched: names of parameters that were taken.
    fresh: names of parameters of the new model that keep their random values.
    left_over: names of parameters of the checkpoint that were not taken.
    n_matched, n_fresh: how many numbers those parameters contain.
  """

  source: Path
  matched: tuple[str, ...]
  fresh: tuple[str, ...]
  left_over: tuple[str, ...]
  n_matched: int
  n_fresh: int

  def __str__(self) -> str:
    """Returns one sentence with the names that were not matched."""

    def names(those):
      return f' ({", ".join(those)})' if those else ''

    return (
      f'{self.source}: {len(self.matched)} parameters taken ({self.n_matched:,} numbers), '
      f'{len(self.fresh)} fresh{names(self.fresh)}, {len(self.left_over)} left over{names(self.left_over)}'
    )


def find_step(config: InitFromConfig) -> int:
  """Returns the step of the other run to use, the same for all processes; the main process verifies its files.

  Raises:
    UserError: if it is missing or damaged.
  """
  return hosts.broadcast_from_main(lambda: checkpoint.require_step(Path(config.workdir), config.step or None))


def take_parameters(
  params: Params, facts: ModelFacts, config: InitFromConfig, step: int, tokenizer: str
) -> tuple[Params, InitReport]:
  """Returns the parameters of another run's checkpoint, placed on devices as `params` are.

  Args:
    params: fresh parameters on their devices.
    facts: facts about their model.
    config: which run to use, and which parameters may differ.
    step: the step of its checkpoint.
    tokenizer: fingerprint of this run's tokenizer.

  Raises:
    UserError: if the other run has another vocabulary and its embedding is taken; if a parameter is missing, left over
      or has another shape, and the config does not allow that; or if a pattern matches no parameter.
  """
  workdir = Path(config.workdir)
  source = checkpoint.folder(workdir) / str(step)
  tokens = checkpoint.read_run(workdir, step)[1]['vocabulary']['fingerprint']
  wanted, stored = flatten(params), checkpoint.stored_params(workdir, step)
  fresh = _matching(config.fresh, wanted, 'InitFromConfig.fresh', 'this model')
  left_over = _matching(config.left_over, stored, 'InitFromConfig.left_over', str(source))
  left_over |= {name for name in fresh if name in stored}
  if tokens != tokenizer and not any(facts[name].group == 'embedding' for name in fresh):
    raise UserError(
      f'{source}: expected the vocabulary of this run ({tokenizer[:12]}), found {tokens[:12]}; initialize what depends '
      f'on it randomly with {_flag("fresh", *config.fresh, "embedding.*", "output.*")}'
    )
  for name, array in wanted.items():
    if name not in fresh and describe(stored.get(name)) != describe(array):
      raise UserError(
        f'{source}: expected {name} of {describe(array)}, found {describe(stored.get(name))}; '
        f'initialize it randomly with {_flag("fresh", *config.fresh, name)}'
      )
    if name in left_over and name not in fresh:
      raise UserError(f'InitFromConfig.left_over: this model has the parameter {name}; remove it from the patterns')
  for name in stored:
    if name not in wanted and name not in left_over:
      raise UserError(
        f'{source}: this model has no parameter {name}, found {describe(stored[name])}; '
        f'ignore it with {_flag("left_over", *config.left_over, name)}'
      )
  matched = {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for name, x in wanted.items() if name not in fresh
  }
  taken = checkpoint.restore_named(workdir, step, matched)
  report = InitReport(
    source,
    tuple(matched),
    tuple(sorted(fresh)),
    tuple(sorted(left_over)),
    sum(x.size for x in matched.values()),
    sum(wanted[name].size for name in fresh),
  )
  return unflatten(wanted | taken), report


def _flag(field: str, *patterns: str) -> str:
  """Returns the flag that adds a pattern to those that are given."""
  return flag(f'InitFromConfig.{field}', repr(list(patterns)))


def _matching(patterns: tuple[str, ...], names, field: str, where: str) -> set[str]:
  found = set()
  for pattern in patterns:
    matching = fnmatch.filter(names, pattern)
    if not matching:
      raise UserError(f'{field}: the pattern {pattern!r} matches no parameter of {where}')
    found |= set(matching)
  return found
