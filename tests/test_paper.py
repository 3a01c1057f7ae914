"""The experiments of `benchmarks/paper.py`: defined rightly, resumed exactly, and never done twice."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest

from benchmarks.claims import charts, measuring, running
from benchmarks.claims.command import main
from benchmarks.claims.experiment import Experiment
from benchmarks.claims.experiments import EXPERIMENTS, chosen
from benchmarks.claims.long_text import documents
from benchmarks.claims.results import Mean, mean_of
from terraformer.config import UserError
from terraformer.data.docstrings import Docstring
from terraformer.models.twin import n_parameters
from terraformer.training import checkpoint
from terraformer.training.metrics import read_metrics
from tests import formats
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


def test_texts_longer_than_in_training_are_read_whole_and_scored_by_length(tmp_path, monkeypatch):
  class Copies:
    """Copies up to 6 digits of what it reads."""

    def __init__(self, bundle):
      self.bundle = bundle

    def generate_batch(self, texts):
      assert max(map(len, texts)) < self.bundle.inputs_length
      return [text[:6] for text in texts]

  formats.unpack('v1', 'digits', tmp_path)
  monkeypatch.setattr(measuring, 'Decoder', Copies)
  monkeypatch.setattr(measuring, '_TOGETHER', 2)
  run, _ = checkpoint.read_run(tmp_path / formats.RUN, checkpoint.require_step(tmp_path / formats.RUN))
  found = measuring.texts_by_length(run, tmp_path / formats.RUN, (3, 6, 9), 5)
  right = {length: sum(text == one['targets'] for one, text in pairs) for length, pairs in found.items()}
  assert right == {3: 5, 6: 5, 9: 0}


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('17243172599', {'wrong': 0, 'jumped': 0}),
    ('172599', {'wrong': 1, 'jumped': 1}),
    ('1725', {'wrong': 1, 'jumped': 0}),
    ('17243172588', {'wrong': 1, 'jumped': 0}),
    ('', {'wrong': 1, 'jumped': 0}),
  ],
)
def test_a_copy_that_goes_on_elsewhere_has_jumped(text, expected):
  number = '17243172599'
  assert measuring.jumps([({'inputs': number, 'targets': number}, text)]) == expected


@pytest.mark.parametrize(
  ('values', 'expected'), [([1.0], Mean(1.0, None, 1.0, 1.0, 1)), ([1.0, 2.0, 3.0], Mean(2.0, 2.484, 1.0, 3.0, 3))]
)
def test_an_interval_over_seeds_is_that_of_student(values, expected):
  found = mean_of(values)
  assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(expected), abs=1e-3)


@pytest.mark.parametrize(
  ('low', 'high', 'first', 'last'),
  [(0.0, 1.0, 0.0, 1.0), (2.0, 48.0, 0.0, 50.0), (3.11, 3.89, 3.0, 4.0), (2.0, 2.0, 2.0, 3.0)],
)
def test_the_axis_of_a_chart_covers_its_values_with_few_round_numbers(low, high, first, last):
  ticks = charts.ticks(low, high)
  assert (ticks[0], ticks[-1]) == (first, last)
  assert 4 <= len(ticks) <= 9


def test_a_long_document_is_the_docstrings_of_a_module_in_the_order_of_names():
  made = [
    Docstring('a', name, letter * 3000) for name, letter in (('a.b.c.two', 'y'), ('a.b.d', 'z'), ('a.b.c.one', 'x'))
  ]
  (found,) = documents(made)
  assert found == f'a.b.c.one\n{"x" * 3000}\n\na.b.c.two\n{"y" * 3000}'


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


def test_a_result_of_another_definition_is_told_apart():
  experiment = chosen('copy-sru-0', 'cpu')[0]
  result = {'bindings': [], 'gin': running._gin_text(experiment)}
  saved_less = result | {'gin': result['gin'].replace('CheckpointConfig.every = 50', 'CheckpointConfig.every = 9')}
  longer = result | {'gin': result['gin'].replace('TrainConfig.steps = ', 'TrainConfig.steps = 9')}
  assert [running.is_current(experiment, one) for one in (result, saved_less, longer)] == [True, True, False]
