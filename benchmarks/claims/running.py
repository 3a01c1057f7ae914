"""Runs an experiment to its end, and knows which ones are done."""

import functools
import json
import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

import terraformer
from benchmarks.claims.experiment import Experiment
from benchmarks.claims.measuring import measure
from terraformer.files import write_whole
from terraformer.training import hosts

ROOT = Path(__file__).parents[2]


class TimeUpError(Exception):
  """The time that the user gave is up; all that was done is saved."""


def result_of(experiment: Experiment, results: Path) -> dict[str, Any] | None:
  """Returns the stored result of an experiment, or None if it is not done."""
  path = results / f'{experiment.name}.json'
  return json.loads(path.read_text()) if path.exists() else None


def is_current(experiment: Experiment, result: dict[str, Any]) -> bool:
  """Whether a stored result is of the experiment as it is defined now; how often it was saved does not matter."""

  def trained(gin: str) -> list[str]:
    return [line for line in gin.splitlines() if 'CheckpointConfig' not in line]

  same_file = trained(result['gin']) == trained(_gin_text(experiment))
  return same_file and result['bindings'] == list(experiment.bindings)


def run(experiment: Experiment, folder: Path, results: Path) -> dict[str, Any]:
  """Trains, measures, and writes the file of results; resumes what was begun, and does nothing for what is done.

  Args:
    experiment: what to do.
    folder: folder of all training runs and their data.
    results: folder of all results.

  Returns:
    The result.

  Raises:
    TimeUpError: if training was interrupted, and saved.
  """
  if (done := result_of(experiment, results)) is not None:
    return done
  workdir = folder / experiment.name
  workdir.mkdir(parents=True, exist_ok=True)
  origin = _origin(workdir)
  if experiment.write_text:
    experiment.write_text(experiment.data_folder(folder))
  config = experiment.run(folder)
  ended = terraformer.train(config, workdir, show_progress=False)
  if ended.interrupted:
    raise TimeUpError(f'{experiment.name}: stopped at step {ended.step}')
  result = {
    'name': experiment.name,
    'gin': _gin_text(experiment),
    'bindings': list(experiment.bindings),
    'seed': experiment.seed,
    'command': f'python benchmarks/paper.py --scale={experiment.scale} --only={experiment.name}',
    **origin,
    **measure(experiment, config, workdir),
  }
  write_whole(results / f'{experiment.name}.json', (json.dumps(result, indent=1) + '\n').encode())
  return result


@contextmanager
def limited(hours: float | None) -> Iterator[None]:
  """Interrupts the block after a time as Ctrl-C does: training saves a checkpoint and returns."""
  if hours is None:
    yield
    return
  timer = threading.Timer(hours * 3600, os.kill, (os.getpid(), signal.SIGINT))
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def _gin_text(experiment: Experiment) -> str:
  """Returns the lines of the experiment's gin file that say something."""
  lines = (Path(__file__).parent / experiment.gin).read_text().splitlines()
  return '\n'.join(line.partition('  #')[0] for line in lines if line and not line.startswith('#'))


def _origin(workdir: Path) -> dict[str, Any]:
  """Returns the commit and machine of each start of a run, with this one added to them."""
  path = workdir / 'starts.json'
  starts = json.loads(path.read_text()) if path.exists() else []
  starts.append({'commit': commit(), 'machine': machine(), 'date': time.strftime('%Y-%m-%d')})
  write_whole(path, json.dumps(starts).encode())
  return {'starts': [each for number, each in enumerate(starts) if each not in starts[:number]]}


@functools.cache  # the modules of this process are those of its start
def commit() -> str:
  """Returns the commit of the library, with a `+` if its files differ from the commit."""

  def git(*arguments: str) -> str:
    return subprocess.run(['git', *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

  changed = git('status', '--porcelain', '--', 'terraformer', 'gin_configs')
  return git('rev-parse', 'HEAD') + ('+' if changed else '')


def machine() -> str:
  """Returns the machine in words: the processor, the cores, jax and its devices."""
  model = [line for line in _lines('/proc/cpuinfo') if line.startswith('model name')]
  processor = model[0].partition(':')[2].strip() if model else platform.processor() or platform.machine()
  return f'{processor}, {len(os.sched_getaffinity(0))} cores, {hosts.describe()}, jax {jax.__version__}'


def _lines(path: str) -> list[str]:
  return Path(path).read_text().splitlines() if Path(path).exists() else []
