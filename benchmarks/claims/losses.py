"""Losses of several models beside that of one of them: a table and a chart."""

from benchmarks.claims.charts import Line, line_chart
from benchmarks.claims.results import Mean, Results, final_loss, mean_of
from benchmarks.claims.section import nats, table


def beside(results: Results, variant: str, baseline: str) -> Mean | None:
  """Returns the mean difference of the final loss from the baseline of the same seed; None if they share no seed."""
  ours, theirs = results.seeds(variant), results.seeds(baseline)
  pairs = [final_loss(ours[seed]) - final_loss(theirs[seed]) for seed in ours if seed in theirs]
  return mean_of(pairs) if pairs else None


def loss_table(results: Results, names: dict[str, str], baseline: str, head: str) -> str:
  """Returns a table with a row for each variant (name -> label) that has a result.

  Args:
    results: all results.
    names: variants in the order of the rows.
    baseline: the variant that the others are compared with.
    head: the head of the column of labels.
  """
  rows = []
  for name, label in results.variants(names).items():
    seeds = list(results.seeds(name).values())
    difference = None if name == baseline else beside(results, name, baseline)
    rows.append(
      [
        label,
        f'{seeds[0]["parameters"]:,}',
        f'{seeds[0]["steps"]:,}',
        str(len(seeds)),
        nats(mean_of([final_loss(one) for one in seeds])),
        '' if difference is None else nats(difference, '+'),
        *_times(results.speed.get(name, {})),
      ]
    )
  heads = [head, 'parameters', 'steps', 'seeds', 'loss', f'beside {names[baseline]}', 'step', 'token']
  wanted = [number for number in range(len(heads)) if any(row[number] for row in rows)]
  return table([heads[number] for number in wanted], [[row[number] for number in wanted] for row in rows])


def _times(speed: dict[str, float | None]) -> list[str]:
  """Returns the times of a training step and of a decoded token; empty if they were not measured."""
  step, token = speed.get('step_seconds'), speed.get('token_seconds')
  return [f'{step:.3f} s' if step else '', f'{1000 * token:.3f} ms' if token else '']


def loss_chart(results: Results, names: dict[str, str], title: str) -> str:
  """Returns a chart of validation losses by step: means over seeds, with a band from the lowest to the highest."""
  lines = [_line(results, name, label) for name, label in results.variants(names).items()]
  return line_chart(title, ('steps', 'validation loss, nats per token'), lines)


def _line(results: Results, variant: str, label: str) -> Line:
  seeds = [one['losses'] for one in results.seeds(variant).values()]
  means = {int(step): mean_of([one[step]['loss'] for one in seeds]) for step in seeds[0]}
  band = [(x, mean.lowest, mean.highest) for x, mean in means.items()] if len(seeds) > 1 else []
  return Line(label, [(x, mean.value) for x, mean in means.items()], band)
