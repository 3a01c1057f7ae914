"""Draws the paper's chart of decoding times (Figure 2): a group of bars per variant, a bar per engine and type."""

import errno
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from terraformer.bench.decode import DecodeTime, by_context_and_batch
from terraformer.config import refused
from terraformer.files import write_whole
from terraformer.paths import target_of

_LABELS = {'dense': 'dense', 'ff': '+ sparse FF', 'ff_qkv': '+ sparse QKV', 'ff_qkv_output': '+ sparse output'}
_COLORS = ('#9aa7b4', '#3b6ea5', '#5b9b7a', '#d98c3f', '#8d6fb0', '#b56576', '#c9a227', '#6c757d', '#2f9e9e')


def require_writable(path: Path) -> None:
  """Raises UserError if a chart cannot be written to a file; measuring takes long, so it is called before."""
  path = target_of(path)
  try:
    if path.is_dir():
      raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.is_file() or not path.exists():  # others, such as a pipe, are written directly
      with tempfile.TemporaryFile(dir=path.parent):
        pass
  except OSError as error:
    raise refused(path, 'write', error) from error


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
    1, len(groups), figsize=(2 + 5.2 * len(groups), 4.2), layout='constrained', squeeze=False
  )
  for axes, ((context, batch), group) in zip(all_axes[0], groups.items(), strict=True):
    slowest = max(result.ms_per_token for result in group)
    variants = list(dict.fromkeys(result.variant for result in group))
    kinds = list(dict.fromkeys((result.engine, result.dtype) for result in group))
    width = 0.8 / len(kinds)
    for number, kind in enumerate(kinds):
      some = [result for result in group if (result.engine, result.dtype) == kind]
      at = [variants.index(result.variant) + (number - (len(kinds) - 1) / 2) * width for result in some]
      bars = axes.bar(at, [result.ms_per_token for result in some], width, color=_COLORS[number], label=' '.join(kind))
      labels = [f'{result.ms_per_token:.1f}\n{slowest / result.ms_per_token:.1f}x' for result in some]
      axes.bar_label(bars, labels, fontsize=7, padding=2)
    axes.set_xticks(range(len(variants)), [_LABELS[variant] for variant in variants])
    axes.legend(frameon=False, fontsize=8)
    axes.margins(y=0.18)
    axes.set_title(f'context {context:,}, batch {batch}')
    axes.tick_params(axis='x', labelrotation=20)
    axes.spines[['top', 'right']].set_visible(False)
  all_axes[0][0].set_ylabel('milliseconds per step')
  first = results[0]
  part = '' if first.layers[0] == first.layers[1] else f', {first.layers[0]} of {first.layers[1]} decoder layers'
  figure.supxlabel(f'decoding on a CPU, random weights{part}', fontsize=9)
  picture = io.BytesIO()
  figure.savefig(picture, dpi=110)
  plt.close(figure)
  try:
    write_whole(path, picture.getvalue())
  except OSError as error:
    raise refused(path, 'write', error) from error
