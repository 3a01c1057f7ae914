"""Beginning with the parameters of another run, and saying of each whether it was taken."""

import dataclasses
import fnmatch
from pathlib import Path

import jax

from terraformer.config import InitFromConfig, UserError
from terraformer.layers.parameter import ModelFacts
from terraformer.models.parameters import Params, describe, flatten, unflatten
from terraformer.training import checkpoint, hosts


@dataclasses.dataclass(frozen=True)
class InitReport:
  """What became of every parameter.

  Attributes:
    source: the checkpoint's folder.
    matched: names that were taken.
    fresh: names of the new model that keep their random values.
    left_over: names of the checkpoint that were not taken.
    n_matched, n_fresh: numbers in those parameters.
  """

  source: Path
  matched: tuple[str, ...]
  fresh: tuple[str, ...]
  left_over: tuple[str, ...]
  n_matched: int
  n_fresh: int

  def __str__(self) -> str:
    """One sentence, with the names that were not matched."""

    def names(those):
      return f' ({", ".join(those)})' if those else ''

    return (
      f'{self.source}: {len(self.matched)} parameters taken ({self.n_matched:,} numbers), '
      f'{len(self.fresh)} fresh{names(self.fresh)}, {len(self.left_over)} left over{names(self.left_over)}'
    )


def find_step(config: InitFromConfig) -> int:
  """The step of the other run that is taken, the same for all processes; the main one sees that it is whole.

  Raises:
    UserError: if there is none, or it is damaged.
  """
  return hosts.broadcast_from_main(lambda: checkpoint.require_step(Path(config.workdir), config.step or None))


def take_parameters(
  params: Params, facts: ModelFacts, config: InitFromConfig, step: int, tokenizer: str
) -> tuple[Params, InitReport]:
  """The parameters of another run's checkpoint in the places of `params`.

  Args:
    params: freshly made, wherever they lie.
    facts: of their model.
    config: which run, and what may not match.
    step: of its checkpoint.
    vocabulary: fingerprint of the tokens of this run.

  Raises:
    UserError: if the other run has other tokens and its embedding is taken, or naming the first parameter that is
      missing, left over or of another shape and not allowed to be, or a pattern that no parameter matches.
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
      f'{source}: expected the vocabulary of this run ({tokenizer[:12]}), found another ({tokens[:12]}); name '
      "'embedding.*' and 'output.*' in InitFromConfig.fresh to begin them anew"
    )
  for name, array in wanted.items():
    if name not in fresh and describe(stored.get(name)) != describe(array):
      raise UserError(
        f'{source}: expected {name} of {describe(array)}, found {describe(stored.get(name))}; '
        'name it in InitFromConfig.fresh to begin it anew'
      )
    if name in left_over and name not in fresh:
      raise UserError(f'InitFromConfig.left_over: expected no parameter that this model has, found {name}')
  for name in stored:
    if name not in wanted and name not in left_over:
      raise UserError(
        f'{source}: expected parameters of this model, found {name} of {describe(stored[name])}; '
        'name it in InitFromConfig.left_over to do without'
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


def _matching(patterns: tuple[str, ...], names, field: str, where: str) -> set[str]:
  found = set()
  for pattern in patterns:
    matching = fnmatch.filter(names, pattern)
    if not matching:
      raise UserError(f'{field}: expected patterns of parameters of {where}, found {pattern!r}')
    found |= set(matching)
  return found
