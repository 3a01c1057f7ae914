"""A loss that is not finite, or jumps: the run leaves its batch out, or stops and says which it was."""

import dataclasses
import re
import zlib

import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.cli import load_configs
from terraformer.config import CheckpointConfig, DivergenceConfig, InitFromConfig
from terraformer.data.batches import open_prepared
from terraformer.train import checkpoint, loop
from terraformer.train.divergence import DivergedError, Guard
from terraformer.train.feed import batch_number
from terraformer.train.manifest import verify
from terraformer.train.metrics import read_metrics

POISON = (8, 17)  # numbers of batches


def test_a_batch_that_is_left_out_is_followed_by_the_next():
  assert [batch_number(step, [2, 3, 7]) for step in range(6)] == [0, 1, 4, 5, 6, 8]


def test_a_guard_lets_noise_pass_and_names_a_spike():
  guard = Guard(DivergenceConfig(max_rise=1.0, window=3), [])
  for step, loss in enumerate((5.0, 9.0, 4.0, 6.9)):  # no judgement before there are three
    guard.check(step, loss, 1.0, [], {})
  norms = {'decoder': np.array([0.1, 7.0]), 'output': np.float32(2)}
  with pytest.raises(DivergedError, match=re.escape('expected a loss of at most 7.633, found loss 7.7')) as error:
    guard.check(4, 7.7, 3.0, [5, 6], norms)
  assert 'on the examples [5, 6]; gradient norms: decoder[1] 7, output 2, decoder[0] 0.1' in str(error.value)
  assert list(guard.recent) == [9.0, 4.0, 6.9]  # the spike is not taken into the mean


@pytest.mark.parametrize(('loss', 'norm'), [(np.nan, 1.0), (np.inf, 1.0), (2.0, np.nan), (2.0, np.inf)])
def test_what_is_not_finite_is_named(loss, norm):
  with pytest.raises(DivergedError, match='step 7: expected a finite loss and gradient norm, found'):
    Guard(DivergenceConfig(), []).check(7, loss, norm, [1], {'output': np.array(np.nan)})


@pytest.fixture(scope='module')
def poisoned(gin_file, finished_run, tmp_path_factory):
  """A run from another run's parameters, two of whose batches give a loss that is not a number; one may be left out."""
  run, _, _ = load_configs([str(gin_file)], [])
  config = dataclasses.replace(
    run.train,
    divergence=DivergenceConfig(max_skipped=1),
    checkpoints=CheckpointConfig(every=5, permanent_every=4),
    init_from=InitFromConfig(workdir=str(finished_run)),
    log_every=1,
    eval_every=0,
    sample_every=0,
    watch_every=0,
  )
  run = dataclasses.replace(run, train=config)
  batches = open_prepared(run.data).train_batches(config.batch_size, config.seed)
  sums = jnp.array([int(batches.batch(number)['inputs'].sum()) for number in POISON])
  make = loop.make_train_step

  def make_poisoned(*arguments):
    step = make(*arguments)

    def poisoned_step(state, batch):
      state, metrics, norms = step(state, batch)
      total = jnp.where((batch['inputs'].sum() == sums).any(), jnp.nan, metrics.loss.total)
      return state, metrics.replace(loss=metrics.loss.replace(total=total)), norms

    return poisoned_step

  workdir = tmp_path_factory.mktemp('poisoned') / 'run'
  with pytest.MonkeyPatch.context() as patch, pytest.raises(DivergedError) as error:
    patch.setattr(loop, 'make_train_step', make_poisoned)
    loop.train(run, workdir, progress=False)
  return workdir, batches, error.value


def test_the_run_goes_back_and_on_without_the_batch(poisoned):
  workdir, batches, _ = poisoned
  rows = [row for row in read_metrics(workdir) if row['split'] == 'train']
  numbers = [n for n in range(17) if n != 8]  # and stops at batch 17, in step 17
  assert [row['step'] for row in rows] == list(range(1, 17))
  assert [row['examples_crc32'] for row in rows] == [
    zlib.crc32(batches.ids(n).astype('<i8').tobytes()) for n in numbers
  ]


def test_what_was_left_out_is_kept_in_the_checkpoint(poisoned):
  assert checkpoint.steps(poisoned[0]) == [15, 10, 5]
  stored = checkpoint.read_run(poisoned[0], 15)[1]
  assert stored['skipped'] == [8] and len(stored['recent_losses']) == 15
  assert checkpoint.read_run(poisoned[0], 5)[1]['skipped'] == []


def test_permanent_checkpoints_are_kept_in_a_folder_of_their_own(poisoned):
  folder = poisoned[0] / 'permanent'  # step 8 was passed twice
  assert sorted(int(path.name) for path in folder.iterdir()) == [4, 8, 12, 16]
  for path in folder.iterdir():
    verify(path)


def test_the_next_one_stops_it_with_step_examples_and_norms(poisoned):
  _, batches, error = poisoned
  assert error.step == 17
  assert 'step 17: expected a finite loss and gradient norm, found loss nan' in str(error)
  assert f'on the examples {batches.ids(17).tolist()}; gradient norms: ' in str(error)
  assert re.search(r'decoder\[\d\] [\d.e-]+', str(error))


def test_it_began_with_the_other_runs_parameters(poisoned, finished_run):
  first = next(row for row in read_metrics(poisoned[0]) if row['split'] == 'train')
  last = [row for row in read_metrics(finished_run) if row['split'] == 'train'][-1]
  random = next(row for row in read_metrics(finished_run) if row['split'] == 'train')
  assert abs(first['loss'] - last['loss']) < abs(first['loss'] - random['loss']) / 2
