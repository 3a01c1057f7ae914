"""A loss that is not finite, or jumps: the run leaves its batch out, or stops and says which it was."""

import dataclasses
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.cli import load_configs
from terraformer.config import (
  BlockConfig,
  CheckpointConfig,
  DenseFFConfig,
  DenseProjectionConfig,
  DivergenceConfig,
  InitFromConfig,
  LanguageModelConfig,
  PlainResidualConfig,
)
from terraformer.data.batches import open_prepared
from terraformer.training import checkpoint, loop, programs
from terraformer.training.batch_loader import batch_number
from terraformer.training.divergence import DivergedError, Guard
from terraformer.training.manifest import verify
from terraformer.training.metrics import read_metrics

POISON = (8, 17)  # numbers of batches
# Which model it is makes no difference to what is left out; this one compiles in a second.
DENSE = BlockConfig(16, 2, DenseProjectionConfig(), DenseFFConfig(16), recurrence=None)
PLAIN = LanguageModelConfig(452, 18, n_layers=1, decoder=DENSE, residual=PlainResidualConfig())


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


def config_of(gin_file, **fields):
  """The tiny run, in which nothing but steps is logged."""
  run, _, _ = load_configs([str(gin_file)], [])
  quiet = {'log_every': 1, 'eval_every': 0, 'sample_every': 0, 'diagnostics_every': 0}
  run = dataclasses.replace(run, train=dataclasses.replace(run.train, **quiet | fields))
  return run, open_prepared(run.data).train_batches(run.train.batch_size, run.train.seed)


def train_with(spoil, run, batches, numbers, workdir):
  """Trains with a step whose result `spoil(is one of these batches, state, metrics)` changes."""
  sums = jnp.array([int(batches.batch(number)['inputs'].sum()) for number in numbers])
  make = programs.make_train_step

  def make_spoilt(*arguments):
    step = make(*arguments)

    def spoilt_step(state, batch):
      state, metrics, norms = step(state, batch)
      return *spoil((batch['inputs'].sum() == sums).any(), state, metrics), norms

    return spoilt_step

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(programs, 'make_train_step', make_spoilt)
    return loop.train(run, workdir, show_progress=False)


def spoil_loss(bad, state, metrics):
  total = jnp.where(bad, jnp.nan, metrics.loss.total)
  return state, metrics.replace(loss=metrics.loss.replace(total=total))


def spoil_parameters(bad, state, metrics):
  return state | {'params': jax.tree.map(lambda x: jnp.where(bad, jnp.nan, x), state['params'])}, metrics


@pytest.fixture(scope='module')
def poisoned(gin_file, finished_run, tmp_path_factory):
  """A run from another run's parameters, two of whose batches give a loss that is not a number; one may be left out."""
  run, batches = config_of(
    gin_file,
    divergence=DivergenceConfig(max_skipped=1),
    checkpoints=CheckpointConfig(every=5, permanent_every=4),
    init_from=InitFromConfig(workdir=str(finished_run)),
  )
  workdir = tmp_path_factory.mktemp('poisoned') / 'run'
  with pytest.raises(DivergedError) as error:
    train_with(spoil_loss, run, batches, POISON, workdir)
  return workdir, batches, error.value


@pytest.mark.parametrize(('every', 'aside'), [(5, []), (11, ['11.aside'])])
def test_a_batch_that_spoils_the_parameters_is_found_one_step_later(gin_file, tmp_path, every, aside):
  checkpoints = CheckpointConfig(every=every, keep=9)
  run, batches = config_of(gin_file, divergence=DivergenceConfig(max_skipped=3), checkpoints=checkpoints)
  result = train_with(spoil_parameters, dataclasses.replace(run, model=PLAIN), batches, [10], tmp_path)
  assert result.step == 24
  # Step 12 shows what step 11 has done with batch 10; its own batches, 11 and then 12, are suspected first.
  assert checkpoint.read_run(tmp_path, 24)[1]['skipped'] == [11, 12, 10]
  assert [path.name for path in checkpoint.folder(tmp_path).glob('*.aside')] == aside
  numbers = [n for n in range(27) if n not in (10, 11, 12)]
  assert sums_of(tmp_path) == [zlib.crc32(batches.ids(number).astype('<i8').tobytes()) for number in numbers]


def sums_of(workdir):
  """What the rows of a log tell of the examples of each step."""
  rows = [row for row in read_metrics(workdir) if row['split'] == 'train']
  assert [row['step'] for row in rows] == list(range(1, len(rows) + 1))
  return [row['examples_crc32'] for row in rows]


def test_the_run_goes_back_and_on_without_the_batch(poisoned):
  workdir, batches, _ = poisoned
  numbers = [n for n in range(17) if n != 8]  # and stops at batch 17, in step 17
  assert sums_of(workdir) == [zlib.crc32(batches.ids(number).astype('<i8').tobytes()) for number in numbers]


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
