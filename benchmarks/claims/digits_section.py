"""Section 4.3 of the paper: copying and adding numbers that are longer than those in training."""

from benchmarks.claims.charts import Line, line_chart
from benchmarks.claims.results import Mean, Results, exact, mean_of
from benchmarks.claims.section import Section, percent, table

_LABELS = {
  'sru': 'sparse, SRU',
  'no_sru': 'sparse, no SRU',
  'dense_sru': 'dense, SRU',
  'dense': 'dense, no SRU',
  'table': 'sparse, SRU, table positions',
  'sru_from_zero': 'sparse, SRU, a fifth of the examples start at position 0',
  'sru_attentions_2': 'sparse, SRU, two attention sublayers per decoder layer',
  'sru_longer': 'sparse, SRU, 4,000 steps',
  'sru_all': 'sparse, SRU, the three changes above together',
}
_TRAINED, _FAR = range(2, 17, 2), range(32, 39)  # numbers of digits
_WANTED = {'copy': 0.9, 'addition': 0.5}


def copying(results: Results) -> Section | None:
  """Returns the section on copying."""
  return _section(results, 'copy', 'Copying numbers', 'copies')


def addition(results: Results) -> Section | None:
  """Returns the section on long addition."""
  return _section(results, 'addition', 'Adding numbers', 'adds')


def _section(results: Results, task: str, title: str, does: str) -> Section | None:
  names = results.variants({f'{task}-{variant}': label for variant, label in _LABELS.items()})
  if f'{task}-sru' not in names:
    return None
  far = {name: _mean(results, name, _FAR) for name in names}
  trained = {name: _mean(results, name, _TRAINED) for name in names}
  one = next(iter(results.seeds(f'{task}-sru').values()))
  rows = [
    [
      label,
      f'{next(iter(results.seeds(name).values()))["parameters"]:,}',
      str(far[name].n),
      percent(trained[name]),
      percent(far[name]),
    ]
    for name, label in names.items()
  ]
  lines = [_line(results, name, label) for name, label in names.items()]
  body = f"""The model is trained on numbers of 1 to 16 digits and decodes greedily; `--only='{task}-*'`. Each length is
{one['numbers']} numbers. Positions are the authors' `fixed-base` unless a row says otherwise. A range is that of
the seeds.

{table(['model', 'parameters', 'seeds', 'exact, 2 to 16 digits', 'exact, 32 to 38 digits'], rows)}
![exact matches by number of digits](pictures/{task}.svg)
{_reason(results, f'{task}-sru')}"""
  chart = line_chart(f'{title}: exact matches by length', ('digits', 'share'), lines, (16, 'longest in training'), 0.0)
  return Section(
    title,
    f'A Terraformer with SRU {does} many numbers that are twice as long as those in training; a Transformer fails',
    _verdict(far, task),
    body,
    {f'{task}.svg': chart},
  )


def _reason(results: Results, variant: str) -> str:
  """Returns how copies go wrong, if that was measured."""
  found = [one['jumps'] for one in results.seeds(variant).values() if 'jumps' in one]
  wrong, jumped = (sum(each[name] for each in found) for name in ('wrong', 'jumped'))
  if not wrong:
    return ''
  return f"""
Of the {wrong:,} wrong copies with SRU, at all lengths, {jumped / wrong:.0%} go on from another place of the source: the
last right digit and the three after it are found there. This suggests that the model finds its place by the digits
that it has just written, and the longer a number is, the more often these occur twice.

The sparse models differ from the dense one by more than sparsity: their queries and keys are convolutions over three
positions, so that they see the digits before. A dense model with the SRU (`dense_sru`) shows whether that does as much.
"""


def _verdict(far: dict[str, Mean], task: str) -> str:
  """Returns what was found at twice the length, and whether the claim holds."""
  with_it, without, dense = (far.get(f'{task}-{name}') for name in ('sru', 'no_sru', 'dense'))
  parts = [f'{with_it.value:.1%} with SRU']
  parts += [f'{without.value:.1%} without'] if without else []
  parts += [f'{dense.value:.1%} dense without'] if dense else []
  wanted = _WANTED[task]
  short = '' if with_it.value >= wanted else f', short of the {wanted:.0%} aimed at'
  if without is None:
    holds = f'open until the same model without SRU is measured{short}'
  elif max(one.highest for one in (without, dense) if one) < with_it.lowest:
    holds = f'holds{short}'
  else:
    holds = f'does not hold: other models are as good{short}'
  return f'{"; ".join(parts)} at 32 to 38 digits after 1 to 16: {holds}'


def _mean(results: Results, variant: str, lengths: range) -> Mean:
  return mean_of([exact(one, lengths) for one in results.seeds(variant).values()])


def _line(results: Results, variant: str, label: str) -> Line:
  """Returns the mean over seeds by length, with a band from the lowest to the highest."""
  seeds = [one['exact'] for one in results.seeds(variant).values()]
  means = {int(length): mean_of([one[length] for one in seeds]) for length in seeds[0]}
  band = [(x, mean.lowest, mean.highest) for x, mean in means.items()] if len(seeds) > 1 else []
  return Line(label, [(x, mean.value) for x, mean in means.items()], band)
