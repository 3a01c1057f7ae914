"""Figure 1 of the paper: sparse layers beside dense ones with as many parameters, on text."""

from benchmarks.claims.charts import Line, line_chart
from benchmarks.claims.results import Mean, Results, final_loss, mean_of
from benchmarks.claims.section import Section, nats, table

_LABELS = {
  'dense': 'dense',
  'ff': 'sparse FF',
  'qkv': 'sparse QKV',
  'ff_qkv': 'sparse FF + QKV',
  'ff_qkv_output': 'sparse FF + QKV + output',
  'switch': 'mixture of experts',
}
_WANTED = 0.03  # nats between dense and sparse FF + QKV


def figure_1(results: Results) -> Section | None:
  """Returns the section on the losses of sparse layers."""
  names = results.variants({f'text-{variant}': label for variant, label in _LABELS.items()})
  if 'text-dense' not in names:
    return None
  rows = [_row(results, name, label) for name, label in names.items()]
  body = f"""Language models of 4 layers of width 128 read windows of 128 tokens of docstrings, with a plain residual
stream and no SRU, as in the paper's section 3; `--only='text-*'`. All have as many parameters as the dense model,
within 1%: what sparse QKV save goes into `d_ff`. Runs of one seed read the same batches, and the last column is the
mean of their differences. The loss is that of validation, in nats per token.

{table(['layers', 'parameters', 'seeds', 'loss', 'beside dense'], rows)}
![validation loss by step](pictures/figure_1.svg)
"""
  lines = [_line(results, name, label) for name, label in names.items()]
  chart = line_chart('Sparse layers at equal parameters', ('steps', 'validation loss, nats per token'), lines)
  return Section(
    'Sparse layers at equal parameters',
    'Sparse FF and QKV layers reach the loss of dense ones with as many parameters; mixtures of experts do not',
    _verdict(results),
    body,
    {'figure_1.svg': chart},
  )


def beside_dense(results: Results, variant: str, dense: str = 'text-dense') -> Mean | None:
  """Returns the mean difference of the final loss from the dense model of the same seed; None if they share no seed."""
  ours, theirs = results.seeds(variant), results.seeds(dense)
  pairs = [final_loss(ours[seed]) - final_loss(theirs[seed]) for seed in ours if seed in theirs]
  return mean_of(pairs) if pairs else None


def _row(results: Results, variant: str, label: str) -> list[str]:
  seeds = list(results.seeds(variant).values())
  difference = beside_dense(results, variant)
  shown = '' if variant == 'text-dense' or difference is None else nats(difference, '+')
  return [
    label,
    f'{seeds[0]["parameters"]:,}',
    str(len(seeds)),
    nats(mean_of([final_loss(one) for one in seeds])),
    shown,
  ]


def _verdict(results: Results) -> str:
  difference = beside_dense(results, 'text-ff_qkv')
  if difference is None:
    return 'open'
  low, high = (difference.value + side * (difference.margin or 0) for side in (-1, 1))
  holds = 'holds' if high <= _WANTED else 'does not hold at this size' if low > _WANTED else 'undecided'
  others = [f'mixture of experts {one.value:+.3f}'] if (one := beside_dense(results, 'text-switch')) else []
  found = ', '.join([f'sparse FF + QKV {nats(difference, "+")} nats', *others])
  return f'{found} beside dense ({difference.n} seed{"s" * (difference.n > 1)}): {holds} (expected at most +{_WANTED})'


def _line(results: Results, variant: str, label: str) -> Line:
  """Returns the mean over seeds by step, with a band from the lowest to the highest."""
  seeds = [one['losses'] for one in results.seeds(variant).values()]
  means = {int(step): mean_of([one[step]['loss'] for one in seeds]) for step in seeds[0]}
  band = [(x, mean.lowest, mean.highest) for x, mean in means.items()] if len(seeds) > 1 else []
  return Line(label, [(x, mean.value) for x, mean in means.items()], band)
