"""The experiments of `benchmarks/paper.py`: defined rightly, resumed exactly, and never done twice."""

import json
import os
import signal
import subprocess
import sys

import pytest

from benchmarks.claims import running
from benchmarks.claims.command import main
from benchmarks.claims.experiment import Experiment
from benchmarks.claims.experiments import EXPERIMENTS, chosen
from terraformer.config import UserError
from terraformer.models.twin import n_parameters
from terraformer.training.metrics import read_metrics
from tests.prepared import ROOT
from tests.training.test_resume import assert_same_end, wait_for_rows

_RUN = """
import sys
from pathlib import Path
from benchmarks.claims.experiment import Experiment
from benchmarks.claims.running import run

gin_file, folder = map(Path, sys.argv[1:])
run(Experiment('tiny-0', gin_file, ('TrainConfig.eval_batches = 2',), '', 0.01), folder, folder)
"""


@pytest.fixture
def start_python():
  """Returns start(code, *arguments) -> Popen of an interpreter that can import the package."""

  def start(code, *arguments):
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
    return subprocess.Popen([sys.executable, '-c', code, *map(str, arguments)], env=environment)

  return start


@pytest.fixture
def tiny(gin_file, tmp_path):
  """A folder for runs with the prepared data of the tiny run."""
  (tmp_path / 'data').symlink_to(gin_file.parent / 'data')
  return tmp_path


def test_a_killed_experiment_ends_with_the_same_bits_and_result(start_python, gin_file, finished_run, tiny):
  process = start_python(_RUN, gin_file, tiny)
  wait_for_rows(tiny / 'tiny-0', process, 5)
  process.kill()
  assert process.wait() == -signal.SIGKILL
  assert not (tiny / 'tiny-0.json').exists()
  process = start_python(_RUN, gin_file, tiny)
  assert process.wait(200) == 0
  assert_same_end(finished_run, tiny / 'tiny-0')
  undisturbed = [row for row in read_metrics(finished_run) if row['split'] == 'validation']
  losses = json.loads((tiny / 'tiny-0.json').read_text())['losses']
  assert losses == {
    str(row['step']): {name: round(row[name], 5) for name in ('loss', 'accuracy')} for row in undisturbed
  }


def test_what_is_done_is_not_done_again(tiny):
  (tiny / 'tiny-0.json').write_text('{"done": true}')
  experiment = Experiment('tiny-0', 'no such file', (), '', 0.01)
  assert running.run(experiment, tiny, tiny) == {'done': True}
  assert not (tiny / 'tiny-0').exists()


def test_names_are_unique():
  names = [experiment.name for experiment in EXPERIMENTS]
  assert len(names) == len(set(names))


@pytest.mark.parametrize('experiment', [each for each in EXPERIMENTS if each.seed == 0], ids=lambda each: each.name)
def test_an_experiment_is_a_configuration(experiment, tmp_path):
  run = experiment.run(tmp_path)
  assert run.train.seed == 0
  assert run.data.directory.startswith(str(tmp_path))


def test_models_that_are_compared_on_text_have_equal_parameters(tmp_path):
  for family in ('text', 'larger_text'):
    sizes = {each.name: n_parameters(each.run(tmp_path).model) for each in chosen(f'{family}-*-0', 'cpu')}
    assert sizes == {name: pytest.approx(sizes[f'{family}-dense-0'], rel=0.01) for name in sizes}


def test_a_pattern_that_matches_nothing_is_refused():
  with pytest.raises(UserError, match='no experiment of the scale cpu has this name'):
    chosen('copy-*,nothing', 'cpu')


def test_bad_input_ends_in_a_sentence(capsys):
  assert main(['--only=nothing', '--list']) == 2
  assert capsys.readouterr().err.startswith('paper.py: --only=nothing: no experiment')
