"""Runs that are refused before they begin."""

import dataclasses
import fcntl
import shutil

import pytest

from terraformer.cli import load_configs
from terraformer.config import CheckpointConfig, UserError
from terraformer.training.loop import train


def test_evaluation_without_validation_examples_is_refused_at_once(gin_file, fake_prepared, tmp_path):
  run, _, _ = load_configs([str(gin_file)], [])
  data = fake_prepared('pairs', counts=(9, 0, 0), inputs_length=12, targets_length=6)
  with pytest.raises(UserError, match='there are no validation examples for evaluation and samples'):
    train(dataclasses.replace(run, data=data), tmp_path / 'run', show_progress=False)


def test_a_second_process_is_kept_out(gin_file, tmp_path):
  run, _, _ = load_configs([str(gin_file)], [])
  with (tmp_path / '.lock').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(UserError, match='another process is training in this folder'):
      train(run, tmp_path, show_progress=False)


def test_permanent_checkpoints_of_another_run_are_not_taken_for_its_own(gin_file, finished_run, tmp_path):
  shutil.copytree(finished_run / 'checkpoints', tmp_path / 'for_good')
  run, _, _ = load_configs([str(gin_file)], [])
  checkpoints = CheckpointConfig(permanent_every=8, permanent_directory=str(tmp_path / 'for_good'))
  other = dataclasses.replace(run, train=dataclasses.replace(run.train, seed=7, checkpoints=checkpoints))
  with pytest.raises(UserError, match='for_good was started with train.seed = 0, not '):
    train(other, tmp_path / 'run', show_progress=False)
