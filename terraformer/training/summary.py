"""Summarizes a run as a Markdown page with plots."""

import collections
from pathlib import Path

import numpy as np

from terraformer.config import RunConfig, to_dict
from terraformer.files import write_whole
from terraformer.paths import printable
from terraformer.training import hosts
from terraformer.training.clock import StepTimes, goodput, overhead
from terraformer.training.metrics import read_metrics
from terraformer.training.plot import plot_diagnostics, plot_loss, plot_step_times
from terraformer.training.source_use import SHUFFLED, source_use

_SHOWN = ('loss', 'perplexity', 'accuracy')


def write_summary(
  workdir: Path,
  run: RunConfig,
  step: int,
  seconds: dict[str, float],
  times: StepTimes,
  skipped: list[int],
  baselines: dict[str, float],
) -> Path:
  """Writes `summary.md` and its plots.

  Args:
    workdir: folder of the run.
    run: configuration of the run.
    step: the last step.
    seconds: wall time of this process by phase.
    times: step times of this process.
    skipped: numbers of the skipped batches.
    baselines: name -> perplexity, drawn with the loss.

  Returns:
    The path of `summary.md`.
  """
  rows = 'packs' if run.data.packing else 'examples'
  parts = [
    f'# {printable(workdir.name)}',
    f'{type(run.model).__name__}, task {run.data.task}, step {step:,} of {run.train.steps:,}, '
    f'{run.train.batch_size} {rows} of {run.data.inputs_length} + {run.data.targets_length} tokens a step; '
    f'{hosts.describe()}.',
    _losses(workdir),
    f'![loss]({plot_loss(workdir, baselines).name})',
    '## Where the time went',
    _wall_time(workdir, seconds),
    f'Overhead of the loop (waiting for input, logging, checkpoints): {overhead(seconds):.1%} of the time in steps.',
  ]
  if len(times):
    each = times.last(len(times))
    quantiles = ', '.join(f'{name} {np.quantile(each, share):.4g} s' for name, share in _QUANTILES)
    picture = plot_step_times(workdir, each).name
    parts += ['## Step times', f'{len(each):,} steps of the last process: {quantiles}.', f'![step times]({picture})']
  if pictures := plot_diagnostics(workdir):
    parts += ['## Inside the model', *(f'![{path.stem}]({path.name})' for path in pictures)]
  if skipped:
    parts += ['## Skipped batches', f'At divergence: {", ".join(map(str, skipped))}.']
  parts += ['## Configuration', '\n'.join(['```', *_lines(to_dict(run)), '```'])]
  path = workdir / 'summary.md'
  write_whole(path, ('\n\n'.join(parts) + '\n').encode(errors='backslashreplace'))
  return path


_QUANTILES = (('median', 0.5), ('90%', 0.9), ('99%', 0.99), ('longest', 1.0))


def _losses(workdir: Path) -> str:
  """Returns a table of losses, followed by whether the model uses its source, if it has one."""
  rows = read_metrics(workdir)
  splits = {split: [row for row in rows if row['split'] == split] for split in ('train', 'validation')}
  chosen = [each for split, of_split in splits.items() for each in _chosen(split, of_split)]
  shown = [*_SHOWN, *([SHUFFLED] if any(SHUFFLED in row for _, row in chosen) else [])]
  heads = [name.replace('_', ' ') for name in shown]
  lines = ['| | step | ' + ' | '.join(heads) + ' |', '|---|---|' + '---|' * len(heads)]
  for title, row in chosen:
    cells = [f'{row[name]:.4g}' if name in row else '' for name in shown]
    lines.append(f'| {title} | {row["step"]:,} | ' + ' | '.join(cells) + ' |')
  last = dict(chosen).get('validation, last', {})
  if SHUFFLED in last:
    lines.append(f'\nAt step {last["step"]:,}: {source_use(last["loss"], last[SHUFFLED])}.')
  return '\n'.join(lines)


def _chosen(split: str, rows: list[dict]) -> list[tuple[str, dict]]:
  """Returns the last line of a split, and for evaluations also the best one."""
  if not rows:
    return []
  chosen = [(f'{split}, last', rows[-1])]
  if split == 'validation':
    chosen.append((f'{split}, best', min(rows, key=lambda row: row['loss'])))
  return chosen


def _wall_time(workdir: Path, seconds: dict[str, float]) -> str:
  """Returns a table of phases for the last process, and for all processes of the run as far as they logged."""
  latest = {}
  for row in read_metrics(workdir, 'goodput'):
    latest[row['started']] = row['seconds']
  total: collections.Counter = collections.Counter()
  for each in latest.values():
    total.update(each)
  last, every = goodput(seconds), goodput(total)
  lines = [f'| phase | last process | all starts ({len(latest)}) |', '|---|---|---|']
  lines += [f'| {phase} | {seconds[phase]:.1f} s, {last[phase]:.1%} | {total[phase]:.1f} s, {every.get(phase, 0):.1%} |'
            for phase in seconds]  # fmt: skip
  return '\n'.join(lines)


def _lines(config: dict, indent: int = 0) -> list[str]:
  """Returns a nested config with one field per line."""
  found = []
  for name, value in config.items():
    if isinstance(value, dict):
      found += [f'{" " * indent}{name}: {value["kind"]}', *_lines(value, indent + 2)]
    elif name != 'kind':
      found.append(f'{" " * indent}{name} = {value!r}')
  return found
