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

from terraformer.train.metrics import read_metrics

_SHARED = """
from __gin__ import dynamic_registration
from terraformer import config

include 'gin_configs/models/demo.gin'

config.DataConfig.inputs_length = 48
config.DataConfig.targets_length = 26
config.VocabularyConfig.size = 4096
config.VocabularyConfig.sentinels = 100
config.RunConfig.train = @config.TrainConfig()
config.TrainConfig.batch_size = 16
config.TrainConfig.optimizer = @config.AdamWConfig()
config.TrainConfig.sample_every = 0
config.TrainConfig.watch_every = 0
config.TrainConfig.eval_batches = 32
config.AdamWConfig.schedule = @config.CosineScheduleConfig()
config.CosineScheduleConfig.warmup_steps = 50
"""


def write_gin(folder: Path, pretrain: int, steps: int) -> tuple[Path, Path]:
  """The gin files of pre-training and of training on pairs."""
  text = f"""{_SHARED}
config.DataConfig.directory = '{folder}/data'
config.TrainConfig.eval_every = {{every}}
config.CheckpointConfig.every = {{every}}
config.TrainConfig.steps = {{steps}}
config.CosineScheduleConfig.decay_steps = {{steps}}
config.DataConfig.task = """
  spans = folder / 'spans.gin'
  # Windows are short, so twice T5's share of them is cut out: as many targets as a summary has.
  spans.write_text(
    text.format(every=pretrain // 4, steps=pretrain)
    + """'docstring_text'
config.DataConfig.objective = @config.SpanCorruptionConfig()
config.SpanCorruptionConfig.noise_density = 0.3
config.CosineScheduleConfig.peak = 4e-3
"""
  )
  pairs = folder / 'pairs.gin'
  pairs.write_text(
    text.format(every=steps // 8, steps=steps)
    + f"""'docstring_summarization'
config.VocabularyConfig.path = '{folder}/data/docstring_text/vocabulary.model'
"""
  )
  return spans, pairs


def terraformer(command: str, gin: Path, *bindings: str, workdir: Path | None = None) -> None:
  """Runs a command to its end."""
  flags = [f'--gin_file={gin}', *(f'--gin_bindings={binding}' for binding in bindings)]
  if workdir is not None:
    flags += [f'--workdir={workdir}', '--quiet']
  subprocess.run([sys.executable, '-m', 'terraformer', command, *flags], check=True)


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
  spans, pairs = write_gin(folder, flags.pretrain, flags.steps)
  terraformer('prepare', spans)
  terraformer('prepare', pairs)
  terraformer('train', spans, workdir=folder / 'pretrained')
  init = ('config.TrainConfig.init_from = @config.InitFromConfig()',)
  init += (f"config.InitFromConfig.workdir = '{folder}/pretrained'",)
  curves = {}
  for peak in flags.peaks.split(','):
    for name, bindings in {'pairs alone': (), 'pre-trained': init}.items():
      workdir = folder / f'{name.replace(" ", "_")}_{peak}'
      terraformer('train', pairs, f'config.CosineScheduleConfig.peak = {peak}', *bindings, workdir=workdir)
      curves[f'{name}, {peak}'] = losses(workdir)
  print(f'\n{table(curves)}\n\n{(time.perf_counter() - begun) / 60:.1f} minutes')
  if flags.plot:
    plot(curves, flags.plot)


if __name__ == '__main__':
  main()
