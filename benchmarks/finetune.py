"""Does pre-training help? Docstring summaries, with and without span corruption on docstrings before them.

usage: python benchmarks/finetune.py FOLDER [--pretrain=1200] [--steps=400] [--peaks=4e-3] [--plot=FILE]

A model of the demo's size is pre-trained on the text of this machine's docstrings, then fine-tuned on pairs of a body
and its summary line; beside it the same model is trained on the pairs alone, from random values, with the same steps,
batches and learning rates. Everything is done by the commands that a user would type, in FOLDER, where a second call
goes on. Prints the validation losses by step as a Markdown table.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from terraformer.training.metrics import read_metrics

_PRETRAIN = 'gin_configs/runs/pretrain_docstrings.gin'
_FINETUNE = 'gin_configs/runs/finetune_docstrings.gin'


def terraformer(command: str, gin: str, values: dict[str, object], workdir: Path | None = None) -> None:
  """Runs a command, with other values of some fields, to its end."""
  flags = [f'--gin_file={gin}', *(f'--gin_bindings=config.{name} = {value!r}' for name, value in values.items())]
  if workdir is not None:
    flags += [f'--workdir={workdir}', '--quiet']
  subprocess.run([sys.executable, '-m', 'terraformer', command, *flags], check=True)


def length(steps: int, every: int) -> dict[str, object]:
  """The fields that say how long a run is, and how often it is evaluated."""
  return {
    'TrainConfig.steps': steps,
    'CosineScheduleConfig.decay_steps': steps,
    'TrainConfig.eval_every': every,
    'CheckpointConfig.every': every,
  }


def losses(workdir: Path) -> dict[int, float]:
  """Validation loss by step."""
  return {row['step']: row['loss'] for row in read_metrics(workdir) if row['split'] == 'validation'}


def table(curves: dict[str, dict[int, float]]) -> str:
  """Losses by step."""
  lines = ['| steps | ' + ' | '.join(curves) + ' |', '|' + '---|' * (1 + len(curves))]
  for step in next(iter(curves.values())):
    lines.append(f'| {step} | ' + ' | '.join(f'{curve[step]:.3f}' for curve in curves.values()) + ' |')
  return '\n'.join(lines)


def plot(curves: dict[str, dict[int, float]], path: str) -> None:
  """Losses by step."""
  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(figsize=(5, 3.3), layout='constrained')
  for name, curve in curves.items():
    axes.plot(curve.keys(), curve.values(), marker='.', label=name)
  axes.set(xlabel='steps on pairs', ylabel='validation loss, nats a token')
  axes.grid(alpha=0.3)
  axes.legend()
  figure.savefig(path, dpi=80)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('folder', type=Path)
  parser.add_argument('--pretrain', type=int, default=1200, help='steps on text (default: %(default)s)')
  parser.add_argument('--steps', type=int, default=400, help='steps on pairs (default: %(default)s)')
  parser.add_argument('--peaks', default='4e-3', help='peak learning rates on pairs (default: %(default)s)')
  parser.add_argument('--plot', metavar='FILE')
  flags = parser.parse_args()
  begun = time.perf_counter()
  folder = flags.folder.absolute()
  folder.mkdir(parents=True, exist_ok=True)
  data = {'DataConfig.directory': f'{folder}/data'}
  pairs = data | {'TokenizerConfig.path': f'{folder}/data/docstring_text/vocabulary.model'}
  begin = {'pairs alone': {'TrainConfig.init_from': None}}
  begin['pre-trained'] = {'InitFromConfig.workdir': f'{folder}/pretrained'}
  terraformer('train', _PRETRAIN, data | length(flags.pretrain, flags.pretrain // 4), folder / 'pretrained')
  curves = {}
  for peak in map(float, flags.peaks.split(',')):
    how = pairs | length(flags.steps, flags.steps // 8) | {'CosineScheduleConfig.peak': peak}
    for name, values in begin.items():
      workdir = folder / f'{name.replace(" ", "_")}_{peak}'
      terraformer('train', _FINETUNE, how | values, workdir)
      curves[f'{name}, {peak}'] = losses(workdir)
  print(f'\n{table(curves)}\n\n{(time.perf_counter() - begun) / 60:.1f} minutes')
  if flags.plot:
    plot(curves, flags.plot)


if __name__ == '__main__':
  main()
