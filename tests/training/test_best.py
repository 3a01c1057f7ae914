"""The best checkpoint: kept beside the newest, and known to a run that goes on."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from terraformer.config import CheckpointConfig, TrainConfig, UserError
from terraformer.training import best, checkpoint
from terraformer.training.loop import train
from terraformer.training.manifest import write_manifest
from terraformer.training.metrics import read_metrics


@pytest.fixture
def described(finished_run):
  """What a checkpoint tells of its run."""
  stored = checkpoint.read_run(finished_run, 24)[1]
  return {name: stored[name] for name in ('config', 'gin', 'data_fingerprint', 'vocabulary')}


def test_a_run_keeps_its_lowest_validation_loss(finished_run):
  losses = {row['step']: row['loss'] for row in read_metrics(finished_run) if row['split'] == 'validation'}
  step = min(losses, key=losses.get)
  assert checkpoint.steps(best.folder(finished_run)) == [step] == [best.require_best(finished_run)]
  assert best.validation_of(finished_run, step)['loss'] == losses[step]


def test_whoever_opens_the_folder_again_knows_the_best_so_far(tmp_path, described):
  def save_if_best(kept, step, loss):
    kept.save_if_best(step, {'params': {'w_D': np.full(3, float(step), np.float32)}}, described, {'loss': loss})

  first = best.Best(tmp_path)
  for step, loss in ((4, 3.0), (8, 3.5), (12, float('nan')), (16, 2.5)):
    save_if_best(first, step, loss)
  first.close()
  assert checkpoint.steps(best.folder(tmp_path)) == [16]
  again = best.Best(tmp_path)
  save_if_best(again, 20, 2.75)
  again.close()
  assert checkpoint.steps(best.folder(tmp_path)) == [16]


def test_of_two_that_a_kill_left_the_lower_loss_counts(tmp_path, described):
  for step, loss in ((4, 2.0), (8, 3.0)):
    one = best.Best(tmp_path / str(step))
    one.save_if_best(step, {'params': {'w_D': np.zeros(3, np.float32)}}, described, {'loss': loss})
    one.close()
  shutil.copytree(best.folder(tmp_path / '8') / '8', best.folder(tmp_path / '4') / '8')
  assert best.require_best(tmp_path / '4') == 4


def test_a_resumed_run_does_not_replace_it_by_a_worse_one(finished_run, tmp_path):
  workdir = shutil.copytree(finished_run, tmp_path / 'run')
  (step,) = checkpoint.steps(best.folder(workdir))
  # A loss that no later step reaches, as a run that overfits would have left it.
  path = best.folder(workdir) / str(step) / 'run' / 'metadata'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'validation': {'loss': 0.5}}))
  (best.folder(workdir) / str(step) / 'MANIFEST.json').unlink()
  write_manifest(best.folder(workdir) / str(step))
  run, _ = checkpoint.read_run(workdir, 24)
  result = train(dataclasses.replace(run, train=dataclasses.replace(run.train, steps=25)), workdir, show_progress=False)
  assert result.step == 25 and result.metrics['loss'] > 0.5
  assert checkpoint.steps(workdir)[0] == 25 and checkpoint.steps(best.folder(workdir)) == [step]


def test_where_none_is_kept_it_is_said(tmp_path):
  with pytest.raises(
    UserError, match='has no best checkpoint; leave out --best .* --gin_bindings=.config.CheckpointConfig.best = True'
  ):
    best.require_best(tmp_path)


def test_without_evaluations_there_is_no_best():
  with pytest.raises(UserError, match='CheckpointConfig.best needs evaluations; turn them on with .*eval_every = 200'):
    TrainConfig(eval_every=0, checkpoints=CheckpointConfig(best=True))
