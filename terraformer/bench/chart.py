"""Draws the paper's chart of decoding times (Figure 2), with one bar per variant."""

import io
from collections.abc import Sequence
from pathlib import Path

from terraformer.bench.decode import DecodeTime, by_context_and_batch
from terraformer.config import refused
from terraformer.files import write_whole

_LABELS = {'dense': 'dense', 'ff': '+ sparse FF', 'ff_qkv': '+ sparse QKV', 'ff_qkv_output': '+ sparse output'}


def draw_chart(results: Sequence[DecodeTime], path: Path) -> None:
  """Writes a chart of milliseconds per step to a PNG file, with one plot for each context and batch.

  Raises:
    UserError: if the file cannot be written.
  """
  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt

  groups = by_context_and_batch(results)
  figure, all_axes = plt.subplots(
    1, len(groups), figsize=(2 + 3.6 * len(groups), 4.2), layout='constrained', squeeze=False
  )
  for axes, ((context, batch), group) in zip(all_axes[0], groups.items(), strict=True):
    slowest = max(result.ms_per_token for result in group)
    bars = axes.bar([_LABELS[r.variant] for r in group], [r.ms_per_token for r in group], color='#3b6ea5')
    labels = [f'{r.ms_per_token:.1f}\n{slowest / r.ms_per_token:.1f}x' for r in group]
    axes.bar_label(bars, labels, fontsize=9, padding=2)
    axes.margins(y=0.18)
    axes.set_title(f'context {context:,}, batch {batch}')
    axes.tick_params(axis='x', labelrotation=20)
    axes.spines[['top', 'right']].set_visible(False)
  all_axes[0][0].set_ylabel('milliseconds per step')
  first = results[0]
  part = '' if first.layers[0] == first.layers[1] else f', {first.layers[0]} of {first.layers[1]} decoder layers'
  figure.supxlabel(f'decoding on a CPU, random weights, {first.dtype}{part}', fontsize=9)
  picture = io.BytesIO()
  figure.savefig(picture, dpi=110)
  plt.close(figure)
  try:
    write_whole(path, picture.getvalue())
  except OSError as error:
    raise refused(path, 'write', error) from error
