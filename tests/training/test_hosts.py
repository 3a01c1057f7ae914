"""Real processes that train as one: killed, stopped, and started again on other numbers of processes and devices."""

import shutil
import signal
import socket
import time

import numpy as np
import pytest

from terraformer.training import checkpoint
from terraformer.training.metrics import read_metrics
from tests.training.test_resume import assert_same_end

RESTART = 75
# Without evaluation and samples, which would be compiled in every process at every start.
QUICK = [f'--gin_bindings=config.TrainConfig.{name}_every = 0' for name in ('eval', 'sample', 'diagnostics')]


def free_port():
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


@pytest.fixture
def pod(terraformer, gin_file):
  """Returns start(workdir, processes, devices) -> the processes of one run; none is left behind."""
  started = []

  def start(workdir, processes, devices, looks=False, silence=100):
    flags = f'--xla_force_host_platform_device_count={devices}'
    command = ('train', f'--workdir={workdir}', f'--gin_file={gin_file}')
    address = f'--coordinator_address=127.0.0.1:{free_port()}'
    group = []
    for i in range(processes):
      several = (
        (address, f'--num_processes={processes}', f'--process_id={i}', f'--heartbeat_timeout={silence}')
        if processes > 1
        else ()
      )
      bindings = (
        '--gin_bindings=config.TrainConfig.log_every = 1',
        '--gin_bindings=config.TerraformerConfig.n_encoder_layers = 1',
        '--gin_bindings=config.TerraformerConfig.n_decoder_layers = 1',
        '--gin_bindings=config.MeshConfig.fsdp = 2',
        *([] if looks else QUICK),
      )
      group.append(terraformer(*command, *several, *bindings, xla_flags=flags))
    started.extend(group)
    return group

  yield start
  for process in started:
    process.kill()


def finish(group, timeout=300):
  """The exit statuses, and what was said."""
  said = [process.communicate(timeout=timeout)[1] for process in group]
  return [process.returncode for process in group], '\n'.join(said)[-6000:]


def wait_for_step(workdir, group, step):
  deadline = time.monotonic() + 200
  while not any(row['step'] >= step for row in read_metrics(workdir)):
    assert all(process.poll() is None for process in group), finish(group)[1]
    assert time.monotonic() < deadline
    time.sleep(0.01)


def losses(workdir):
  rows = {row['step']: row for row in read_metrics(workdir) if row['split'] == 'train'}
  steps = sorted(rows)
  assert steps == list(range(1, 25))
  return [rows[s]['examples_crc32'] for s in steps], np.array([rows[s]['loss'] for s in steps])


def test_kills_signals_and_other_topologies_change_neither_batches_nor_losses(pod, tmp_path):
  statuses, said = finish(pod(tmp_path / 'undisturbed', 2, 4, looks=True))
  assert statuses == [0, 0], said
  splits = {row['split'] for row in read_metrics(tmp_path / 'undisturbed')}
  assert splits == {'train', 'validation', 'goodput', 'gradient_norms', 'units_encoder', 'units_decoder'}

  # One process is killed: the other notices and asks to be started again.
  rng = np.random.default_rng(0)
  group = pod(tmp_path / 'run', 2, 4, silence=30)
  wait_for_step(tmp_path / 'run', group, 3)
  victim = int(rng.integers(2))
  group[victim].kill()
  statuses, said = finish(group)
  assert statuses[victim] == -signal.SIGKILL and statuses[1 - victim] not in (0, 1, 2, 3), said

  # All are killed.
  group = pod(tmp_path / 'run', 2, 4)
  wait_for_step(tmp_path / 'run', group, 8)
  for process in group:
    process.kill()
  assert finish(group)[0] == [-signal.SIGKILL] * 2

  # One hears SIGTERM: both save at one step.
  group = pod(tmp_path / 'run', 2, 4)
  wait_for_step(tmp_path / 'run', group, 12)
  group[int(rng.integers(2))].send_signal(signal.SIGTERM)
  statuses, said = finish(group)
  assert statuses == [RESTART, RESTART], said
  step = checkpoint.require_step(tmp_path / 'run')
  assert 12 < step < 24 and said.count(f'SIGTERM at step {step}; saved') == 2, said

  # On the same processes and devices it ends with the same bits.
  shutil.copytree(tmp_path / 'run', tmp_path / 'elsewhere')
  statuses, said = finish(pod(tmp_path / 'run', 2, 4))
  assert statuses == [0, 0], said
  assert_same_end(tmp_path / 'undisturbed', tmp_path / 'run')
  batches, expected = losses(tmp_path / 'undisturbed')
  assert losses(tmp_path / 'run')[0] == batches
  np.testing.assert_array_equal(losses(tmp_path / 'run')[1], expected)

  # On one process of eight devices, and then of four.
  group = pod(tmp_path / 'elsewhere', 1, 8)
  wait_for_step(tmp_path / 'elsewhere', group, step + 2)
  group[0].send_signal(signal.SIGTERM)
  statuses, said = finish(group)
  assert statuses == [RESTART], said
  assert step < checkpoint.require_step(tmp_path / 'elsewhere') < 24
  statuses, said = finish(pod(tmp_path / 'elsewhere', 1, 4))
  assert statuses == [0], said
  assert losses(tmp_path / 'elsewhere')[0] == batches
  np.testing.assert_allclose(losses(tmp_path / 'elsewhere')[1], expected, rtol=1e-5)


def test_a_process_without_the_address_of_the_others_is_refused(terraformer, gin_file, tmp_path):
  process = terraformer('train', f'--workdir={tmp_path}', f'--gin_file={gin_file}', '--num_processes=2')
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 2
  assert '--coordinator_address and --process_id: expected together with --num_processes; add them' in errors
