"""A picture of a run."""

import math
from pathlib import Path

from terraformer.train.metrics import read_metrics


def plot_loss(workdir: Path, baselines: dict[str, float] | None = None) -> Path:
  """Draws training and validation loss over steps to `loss.png` in the run's folder.

  Args:
    workdir: of the run; its `metrics.jsonl` is read.
    baselines: name -> perplexity of a model to compare with, drawn as a level line.

  Returns:
    The picture's path.
  """
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot as plt

  rows = read_metrics(workdir)
  figure, axes = plt.subplots(figsize=(8, 4.5), layout='constrained')
  for split, style in (('train', {'linewidth': 1, 'alpha': 0.8}), ('validation', {'marker': 'o', 'markersize': 4})):
    points = [(row['step'], row['loss']) for row in rows if row['split'] == split]
    if points:
      axes.plot(*zip(*points, strict=True), label=split, **style)
  for name, perplexity in (baselines or {}).items():
    axes.axhline(
      math.log(perplexity), linestyle='--', linewidth=1, color='gray', label=f'{name} (perplexity {perplexity:.0f})'
    )
  axes.set(xlabel='step', ylabel='loss (nats a token)', title=f'{Path(workdir).name}: loss')
  perplexity_axis = axes.secondary_yaxis('right', functions=(_exp, _log))
  perplexity_axis.set_ylabel('perplexity')
  perplexity_axis.set_yscale('log')
  axes.grid(alpha=0.3)
  axes.legend()
  path = Path(workdir) / 'loss.png'
  figure.savefig(path, dpi=120)
  plt.close(figure)
  return path


def _exp(loss):
  import numpy as np

  return np.exp(np.minimum(loss, 50))


def _log(perplexity):
  import numpy as np

  return np.log(np.maximum(perplexity, 1e-9))
