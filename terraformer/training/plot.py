"""Plots of a run."""

import io
import math
from pathlib import Path

import numpy as np

from terraformer.files import write_whole
from terraformer.paths import printable
from terraformer.training.metrics import read_metrics
from terraformer.training.source_use import SHUFFLED

_LOSSES = (
  ('train', 'train', 'loss', {'linewidth': 1, 'alpha': 0.8}),
  ('validation', 'validation', 'loss', {'marker': 'o', 'markersize': 4}),
  ('validation, sources shuffled', 'validation', SHUFFLED, {'marker': 'x', 'markersize': 4, 'linestyle': ':'}),
)


def plot_loss(workdir: Path, baselines: dict[str, float] | None = None) -> Path:
  """Plots training and validation loss, also with shuffled sources, over steps to `loss.png` in the run's folder.

  Args:
    workdir: folder of the run with `metrics.jsonl`.
    baselines: name -> perplexity of a model to compare with, drawn as a horizontal line.

  Returns:
    The path of the plot.
  """
  plt = _pyplot()
  rows = read_metrics(workdir)
  figure, axes = plt.subplots(figsize=(8, 4.5), layout='constrained')
  for label, split, name, style in _LOSSES:
    points = [(row['step'], row[name]) for row in rows if row['split'] == split and name in row]
    if points:
      axes.plot(*zip(*points, strict=True), label=label, **style)
  for name, perplexity in (baselines or {}).items():
    axes.axhline(
      math.log(perplexity), linestyle='--', linewidth=1, color='gray', label=f'{name} (perplexity {perplexity:.0f})'
    )
  axes.set(xlabel='step', ylabel='loss (nats per token)', title=_title(workdir, 'loss'))
  perplexity_axis = axes.secondary_yaxis('right', functions=(_exp, _log))
  perplexity_axis.set_ylabel('perplexity')
  perplexity_axis.set_yscale('log')
  axes.grid(alpha=0.3)
  axes.legend()
  return _save(plt, figure, Path(workdir) / 'loss.png')


def plot_step_times(workdir: Path, seconds: np.ndarray) -> Path:
  """Plots a histogram of step times to `step_times.png`; `seconds` has the time of each step, at least one."""
  plt = _pyplot()
  figure, axes = plt.subplots(figsize=(8, 3), layout='constrained')
  axes.hist(seconds, bins=60, range=(0, float(np.quantile(seconds, 0.995)) * 1.1))
  for name, share in (('median', 0.5), ('99%', 0.99)):
    value = float(np.quantile(seconds, share))
    axes.axvline(value, color='black', linestyle='--', linewidth=1)
    axes.annotate(f' {name} {value:.3g} s', (value, 0.98), xycoords=('data', 'axes fraction'), va='top')
  axes.set(xlabel='seconds per step', ylabel='steps', title=_title(workdir, 'step times'))
  return _save(plt, figure, Path(workdir) / 'step_times.png')


def plot_diagnostics(workdir: Path) -> list[Path]:
  """Plots gradient norms by layer (`gradient_norms.png`) and the units that controllers select (`units.png`), if
  recorded."""
  rows = read_metrics(workdir)
  norms = [row for row in rows if row['split'] == 'gradient_norms']
  units = {row['split'].removeprefix('units_') for row in rows if row['split'].startswith('units_')}
  drawn = []
  plt = _pyplot()
  if norms:
    parts = sorted({name.split('/')[0] for row in norms for name in row} - {'step', 'split'})
    columns = 4
    n_rows = -(-len(parts) // columns)
    figure, axes = plt.subplots(n_rows, columns, figsize=(11, 2.8 * n_rows), layout='constrained', squeeze=False)
    for ax, part in zip(axes.flat, parts, strict=False):
      _draw_layers(plt, ax, norms, part)
      ax.set(xlabel='step', title=part, yscale='log')
    for ax in axes.flat[len(parts) :]:
      ax.set_axis_off()
    figure.suptitle(_title(workdir, 'gradient norms'))
    drawn.append(_save(plt, figure, Path(workdir) / 'gradient_norms.png'))
  if units:
    figure, axes = plt.subplots(len(units), 2, figsize=(8, 3 * len(units)), layout='constrained', squeeze=False)
    for pair, stack in zip(axes, sorted(units), strict=True):
      of_stack = [row for row in rows if row['split'] == f'units_{stack}']
      for ax, (name, label) in zip(pair, _USAGE, strict=True):
        _draw_layers(plt, ax, of_stack, name)
        ax.set(xlabel='step', title=f'{stack}: {label}', ylim=(-0.02, 1.02))
    drawn.append(_save(plt, figure, Path(workdir) / 'units.png'))
  return drawn


_USAGE = (('entropy', 'entropy of a block, of log N'), ('dead', 'share of dead units'))


def _draw_layers(plt, axes, rows: list[dict], part: str) -> None:
  """Draws one line per layer, from dark (the first) to light."""
  layers = sorted({name for row in rows for name in row if name.startswith(f'{part}/')}) or [part]
  for index, name in enumerate(layers):
    color = plt.get_cmap('viridis')(index / max(1, len(layers) - 1) * 0.9)
    points = [(row['step'], row[name]) for row in rows if name in row]
    label = name.split('/')[-1] if len(layers) > 1 and index in (0, len(layers) - 1) else None
    axes.plot(*zip(*points, strict=True), color=color, linewidth=1, marker='.', label=label and f'layer {int(label)}')
  if len(layers) > 1:
    axes.legend(fontsize='small')
  axes.grid(alpha=0.3)


def _title(workdir: Path, what: str) -> str:
  name = printable(Path(workdir).name).replace('$', r'\$')  # matplotlib parses text between two `$` as a formula
  return f'{name}: {what}'


def _pyplot():
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  return pyplot


def _save(plt, figure, path: Path) -> Path:
  picture = io.BytesIO()
  figure.savefig(picture, dpi=120)
  plt.close(figure)
  write_whole(path, picture.getvalue())
  return path


def _exp(loss):
  return np.exp(np.minimum(loss, 50))


def _log(perplexity):
  return np.log(np.maximum(perplexity, 1e-9))
