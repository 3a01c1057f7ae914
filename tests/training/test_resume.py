"""Runs in real processes: killed, stopped, and started again."""

import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from terraformer.models.parameters import flatten
from terraformer.training import checkpoint
from terraformer.training.metrics import read_metrics


def state(workdir, step):
  """Everything in a checkpoint, as it lies on the disk, whichever devices it came from."""
  path = checkpoint.folder(workdir) / str(step) / 'state'
  shapes = ocp.PyTreeCheckpointer().metadata(path).item_metadata.tree
  as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
  restored = ocp.PyTreeCheckpointer().restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
  return {'params': flatten(restored['params']), 'optimizer': restored['optimizer'], 'step': restored['step']}


def assert_same_end(one, other, step=24):
  a, b = state(one, step), state(other, step)
  assert a['params'].keys() == b['params'].keys()
  for name, array in a['params'].items():
    np.testing.assert_array_equal(array, b['params'][name], err_msg=name, strict=True)
  for x, y in zip(_leaves(a['optimizer']), _leaves(b['optimizer']), strict=True):
    np.testing.assert_array_equal(x, y, strict=True)
  assert a['step'] == b['step'] == step


def _leaves(tree):
  if isinstance(tree, dict):
    return [leaf for key in sorted(tree) for leaf in _leaves(tree[key])]
  if isinstance(tree, list | tuple):
    return [leaf for item in tree for leaf in _leaves(item)]
  return [] if tree is None else [tree]


def wait_for_rows(workdir, process, rows):
  """Until the run has logged so many rows, or has ended."""
  deadline = time.monotonic() + 200
  while len(read_metrics(workdir)) < rows and process.poll() is None:
    assert time.monotonic() < deadline
    time.sleep(0.002)


def test_killed_at_random_moments_a_run_ends_with_the_same_bits(terraformer, gin_file, finished_run, tmp_path):
  rng = np.random.default_rng(0)
  command = ('train', f'--workdir={tmp_path}', f'--gin_file={gin_file}')
  kills = 0
  for rows in (0, 2, 5, 9):  # rows logged before the kill: none, and then in and between checkpoints
    process = terraformer(*command)
    wait_for_rows(tmp_path, process, rows)
    time.sleep(rng.uniform(0, 0.1))
    process.kill()
    kills += process.wait() == -signal.SIGKILL
  assert kills >= 3
  process = terraformer(*command)
  _, errors = process.communicate(timeout=200)
  assert process.returncode == 0, errors[-3000:]
  assert_same_end(finished_run, tmp_path)
  train_steps = [row['step'] for row in read_metrics(tmp_path) if row['split'] == 'train']
  assert train_steps == sorted(set(train_steps)) and train_steps[-1] == 24


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops(terraformer, gin_file, finished_run, tmp_path, number, status):
  command = ('train', f'--workdir={tmp_path}', f'--gin_file={gin_file}')
  process = terraformer(*command)
  wait_for_rows(tmp_path, process, 1)
  process.send_signal(number)
  _, errors = process.communicate(timeout=200)
  assert process.returncode == status, errors[-3000:]
  step = checkpoint.require_step(tmp_path)
  assert f'{number.name} at step {step}; saved' in errors
  assert 0 < step < 24
  process = terraformer('train', f'--workdir={tmp_path}')  # the configuration comes from the checkpoint
  _, errors = process.communicate(timeout=200)
  assert process.returncode == 0, errors[-3000:]
  assert_same_end(finished_run, tmp_path)
