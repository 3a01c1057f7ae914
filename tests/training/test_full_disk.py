"""A disk that is full while a run saves: a sentence, the step before, and nothing half-written."""

import errno
import os
import shutil
import subprocess

import jax.numpy as jnp
import pytest

from terraformer.cli import load_configs
from terraformer.files import NO_ROOM, UnwritableError
from terraformer.training import checkpoint, loop

STATE = {'params': {'w': jnp.arange(6.0).reshape(2, 3)}}


@pytest.fixture
def begun(tmp_path, monkeypatch):
  """Returns save(number): checkpoints whose step 1 is saved, and whose step 2 meets that error of the system."""

  def save(number):
    def refuse(folder):
      raise OSError(number, os.strerror(number))

    checkpoints = checkpoint.Checkpoints(tmp_path, 3)
    checkpoints.save(1, STATE, {})
    checkpoints.wait()
    monkeypatch.setattr(checkpoint, 'write_manifest', refuse)
    checkpoints.save(2, STATE, {})
    return checkpoints

  return save


@pytest.mark.parametrize('number', (*NO_ROOM, errno.EIO), ids=errno.errorcode.get)
def test_what_a_save_meets_is_told_with_the_folder_and_nothing_is_left_of_it(begun, tmp_path, number):
  checkpoints = begun(number)
  with pytest.raises(UnwritableError, match=f'^{tmp_path} cannot be written: {os.strerror(number).lower()}$'):
    checkpoints.wait()
  assert [path.name for path in tmp_path.iterdir()] == ['1']
  assert checkpoint.what_is_safe(tmp_path) == 'step 1 is saved; run the same command again to resume from it'


@pytest.mark.parametrize('use', ['save', 'keep_only', 'close'])
def test_whoever_comes_next_is_told(begun, use):
  arguments = {'save': (3, STATE, {}), 'keep_only': (1,), 'close': ()}
  with pytest.raises(UnwritableError):
    getattr(begun(errno.ENOSPC), use)(*arguments[use])


def test_without_a_step_that_is_an_answer_too(tmp_path, gin_file, monkeypatch):
  def fails(*_):
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

  monkeypatch.setattr(loop.setup, 'start', fails)
  sentence = f'^{tmp_path} cannot be written: disk quota exceeded; no step has been saved yet$'
  with pytest.raises(UnwritableError, match=sentence):
    loop.train(load_configs([str(gin_file)], [])[0], tmp_path)


def goes_wrong(process, workdir, reason):
  """The only line of a run that ends since the disk does not take a step."""
  _, errors = process.communicate(timeout=200)
  assert errors == (
    f'terraformer train: {workdir / "checkpoints"} cannot be written: {reason}; '
    'step 24 is saved; run the same command again to resume from it\n'
  )
  assert process.returncode == 1
  assert [path.name for path in (workdir / 'checkpoints').iterdir() if not path.name.isdigit()] == []


def goes_on(process, workdir):
  _, errors = process.communicate(timeout=200)
  assert process.returncode == 0, errors[-3000:]
  assert checkpoint.require_step(workdir) == 28


@pytest.fixture
def command():
  """Arguments that take a finished run some steps further."""
  return lambda workdir: ('train', '--quiet', f'--workdir={workdir}', '--gin_bindings=config.TrainConfig.steps = 28')


def test_a_run_ends_in_a_sentence_and_goes_on_when_there_is_room(terraformer, finished_run, tmp_path, command):
  workdir = shutil.copytree(finished_run, tmp_path / 'run')
  limited = 'ulimit -f 32; exec "$@"'  # 16 KB a file: more than the metrics, less than a checkpoint's
  goes_wrong(terraformer(*command(workdir), shell=limited), workdir, 'file too large')
  goes_on(terraformer(*command(workdir)), workdir)


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 16 MB."""
  disk = tmp_path / 'disk'
  disk.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', str(disk)]
  try:
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
  except FileNotFoundError:
    pytest.skip('there is no mount')
  if mounted.returncode:
    pytest.skip(f'a file system cannot be mounted here: {mounted.stderr.strip()}')
  yield disk
  subprocess.run(['umount', '--lazy', str(disk)], check=True)


@pytest.mark.slow
def test_on_a_disk_that_is_full_too(terraformer, finished_run, small_disk, command):
  workdir = shutil.copytree(finished_run, small_disk / 'run')
  filler = small_disk / 'filler'
  free = shutil.disk_usage(small_disk).free
  filler.write_bytes(bytes(free - 100_000))  # enough for metrics
  goes_wrong(terraformer(*command(workdir)), workdir, 'no space left on device')
  filler.unlink()
  goes_on(terraformer(*command(workdir)), workdir)
