"""Kills a training run again and again, starts it again each time, and compares its end with an undisturbed run's.

usage: python benchmarks/kills.py [--kills=20] [--seed=0]

The run is a small Terraformer on a CPU, on sentences of random words, with a checkpoint every 5 steps. Half of the
kills come at a random time after the start of the process, whatever it is doing then; half after a random number of
steps. Prints one line a kill: the last step that was logged, the step that the next process goes on from, and whether
that is the newest checkpoint that had been committed. Exits with status 1 unless all of it is as it should be.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from terraformer.models.parameters import flatten
from terraformer.training import checkpoint
from terraformer.training.metrics import read_metrics

EVERY = 5
STEPS = 400
GIN = """
from __gin__ import dynamic_registration
from terraformer import config

config.TerraformerConfig.vocab_size = 512
config.TerraformerConfig.max_length = 32
config.TerraformerConfig.n_encoder_layers = 1
config.TerraformerConfig.n_decoder_layers = 1
config.TerraformerConfig.n_decoder_attentions = 1
config.BlockConfig.d_model = 32
config.BlockConfig.n_heads = 2
config.SparseProjectionConfig.n_modules = 4
config.SparseFFConfig.d_ff = 64
config.SparseFFConfig.block_size = 4
config.SparseFFConfig.rank = 4
config.DataConfig.source = @config.LocalFilesConfig()
config.DataConfig.inputs_length = 24
config.DataConfig.targets_length = 8
config.TokenizerConfig.size = 450
config.TrainConfig.batch_size = 8
config.TrainConfig.eval_every = 0
config.TrainConfig.sample_every = 0
config.TrainConfig.diagnostics_every = 0
config.TrainConfig.log_every = 1
"""


def write_inputs(folder: Path, rng: random.Random) -> Path:
  """A gin file, beside the text that it names."""
  words = [''.join(rng.choices('abcdefghijklmnopqrstuvwxyz', k=rng.randint(2, 8))) for _ in range(200)]
  rows = [
    {'inputs': ' '.join(rng.choices(words, k=12)), 'targets': ' '.join(rng.choices(words, k=3))} for _ in range(400)
  ]
  (folder / 'pairs.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  lines = (
    f"config.LocalFilesConfig.train = ('{folder}/pairs.jsonl',)",
    f"config.DataConfig.directory = '{folder}/prepared'",
    f'config.TrainConfig.steps = {STEPS}',
    f'config.CheckpointConfig.every = {EVERY}',
  )
  path = folder / 'run.gin'
  path.write_text(GIN + '\n'.join(lines) + '\n')
  return path


def start(gin: Path, workdir: Path) -> subprocess.Popen:
  command = [sys.executable, '-m', 'terraformer', 'train', f'--gin_file={gin}', f'--workdir={workdir}', '--quiet']
  environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
  return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def last_logged(workdir: Path) -> int:
  return max((row['step'] for row in read_metrics(workdir) if row['split'] == 'train'), default=0)


def wait_until(process: subprocess.Popen, reached) -> None:
  while process.poll() is None and not reached():
    time.sleep(0.005)


def parameters(workdir: Path) -> dict[str, jax.Array]:
  run, _ = checkpoint.read_run(workdir, STEPS)
  return flatten(checkpoint.restore_params(workdir, STEPS, run))


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--seed', type=int, default=0)
  flags = parser.parse_args()
  rng = random.Random(flags.seed)
  with tempfile.TemporaryDirectory() as temporary:
    return run(Path(temporary), flags.kills, rng)


def run(folder: Path, kills: int, rng: random.Random) -> int:
  gin, workdir = write_inputs(folder, rng), folder / 'killed'
  undisturbed = start(gin, folder / 'undisturbed')
  if undisturbed.wait():
    print(undisturbed.stderr.read(), file=sys.stderr)
    return 1
  print(f'undisturbed: {STEPS} steps, a checkpoint every {EVERY}', flush=True)
  failures, worst = 0, 0
  for number in range(kills):
    process, begun, logged = start(gin, workdir), time.monotonic(), last_logged(workdir)
    if number % 2:
      delay = rng.uniform(0, 15)
      wait_until(process, lambda begun=begun, delay=delay: time.monotonic() - begun > delay)
    else:
      goal, delay = logged + rng.randint(1, STEPS // kills), rng.uniform(0, 0.2)
      wait_until(process, lambda goal=goal: last_logged(workdir) >= goal)
      time.sleep(delay)
    process.kill()
    if process.wait() != -signal.SIGKILL:
      print(f'kill {number + 1}: the process had ended with status {process.returncode}\n{process.stderr.read()}')
      failures += process.returncode != 0
      continue
    logged, committed = last_logged(workdir), max(checkpoint.steps(workdir), default=0)
    from_step = checkpoint.latest_step(workdir) or 0
    lost, good = logged - from_step, from_step == committed
    worst, failures = max(worst, lost), failures + (not good)
    print(
      f'kill {number + 1:2}: {time.monotonic() - begun:5.1f} s after the start, last step logged {logged:3}, newest '
      f'checkpoint {committed:3}, goes on from {from_step:3}, loses {lost} steps{"" if good else "  <- WRONG"}',
      flush=True,
    )
  process = start(gin, workdir)
  _, errors = process.communicate()
  if process.returncode:
    print(errors, file=sys.stderr)
    return 1
  one, other = parameters(folder / 'undisturbed'), parameters(workdir)
  different = [name for name in one if not np.array_equal(one[name], other[name])]
  print(f'most steps lost: {worst}; parameters that differ from the undisturbed run: {len(different)} of {len(one)}')
  return int(bool(failures or different))


if __name__ == '__main__':
  sys.exit(main())
