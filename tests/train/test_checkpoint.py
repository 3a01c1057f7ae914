"""Checkpoints that are missing, half-written or of another model."""

import dataclasses
import json
import shutil

import pytest

from terraformer.config import UserError
from terraformer.train import checkpoint


@pytest.fixture
def run_copy(finished_run, tmp_path):
  return shutil.copytree(finished_run, tmp_path / 'run')


def test_the_newest_are_kept_with_the_config_and_the_fingerprints(finished_run):
  steps = sorted(int(path.name) for path in checkpoint.folder(finished_run).iterdir() if path.name.isdigit())
  assert steps == [16, 20, 24]
  run, stored = checkpoint.read_run(finished_run, 24)
  assert run.model.d_model == 16
  assert 'config.BlockConfig.d_model = 16' in stored['gin']
  assert stored['corpus_fingerprint'] == 'c'  # as the stand-in for the miner says
  assert len(stored['data_fingerprint']) == 64 and len(stored['vocabulary']['fingerprint']) == 64


def test_no_checkpoint_is_named(tmp_path):
  with pytest.raises(UserError, match='expected a run with at least one checkpoint, found none'):
    checkpoint.require_step(tmp_path)


@pytest.mark.parametrize('part', ['_CHECKPOINT_METADATA', 'state/_METADATA', 'state', 'run'])
def test_an_incomplete_step_is_named(run_copy, part):
  path = checkpoint.folder(run_copy) / '24' / part
  shutil.rmtree(path) if path.is_dir() else path.unlink()
  with pytest.raises(UserError, match='24: expected a complete checkpoint, found no'):
    checkpoint.latest_step(run_copy)


def test_an_empty_step_is_named(run_copy):
  (checkpoint.folder(run_copy) / '28').mkdir()
  with pytest.raises(UserError, match='28: expected a complete checkpoint'):
    checkpoint.latest_step(run_copy)


def test_a_save_that_was_cut_short_does_not_count(run_copy):
  folder = checkpoint.folder(run_copy)
  shutil.copytree(folder / '24', folder / '28.orbax-checkpoint-tmp')
  assert checkpoint.latest_step(run_copy) == 24


def test_another_shape_is_named(run_copy):
  run, _ = checkpoint.read_run(run_copy, 24)
  model = dataclasses.replace(run.model, vocab_size=456)
  with pytest.raises(UserError, match=r'expected params.embedding.table_VxD of float32\[456, 16\], found .*452, 16'):
    checkpoint.restore_params(run_copy, 24, dataclasses.replace(run, model=model))


def test_another_format_is_named(run_copy):
  path = checkpoint.folder(run_copy) / '24' / 'run' / 'metadata'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'format': 99}))
  with pytest.raises(UserError, match='expected a checkpoint of format 1, found 99'):
    checkpoint.read_run(run_copy, 24)
