"""Where the wall time goes."""

import numpy as np
import pytest

from terraformer.training import clock as clock_lib
from terraformer.training.clock import Clock, StepTimes, goodput, overhead
from terraformer.training.metrics import read_metrics
from terraformer.training.report import time_table


@pytest.fixture
def time(monkeypatch):
  """Returns pass_(seconds), which moves the clock of the module."""
  now = [100.0]
  monkeypatch.setattr(clock_lib.time, 'monotonic', lambda: now[0])

  def pass_(seconds):
    now[0] += seconds

  return pass_


def test_every_second_belongs_to_one_phase(time):
  clock = Clock()
  time(3)
  clock.enter('step')
  time(10)
  with clock.during('compile'):
    time(5)
  time(7)
  clock.enter('input')
  time(1)
  seconds = clock.seconds()
  assert {phase: value for phase, value in seconds.items() if value} == {
    'start': 3, 'step': 17, 'compile': 5, 'input': 1,
  }  # fmt: skip
  assert goodput(seconds)['step'] == 17 / 26
  assert overhead(seconds) == 1 / 17
  assert 'checkpoint) 5.9% of the time in steps' in time_table(seconds)
  assert 'overhead' not in time_table(seconds | {'step': 0})


def test_entering_a_phase_again_shows_that_it_is_alive(time):
  clock = Clock()
  clock.enter('evaluation')
  time(5)
  clock.enter('evaluation')
  assert clock.now == ('evaluation', 105)
  assert clock.seconds()['evaluation'] == 5


def test_step_times_leave_out_what_comes_between(time):
  times = StepTimes()
  for seconds in (9, 1, 2):  # the first one began before anybody looked
    time(seconds)
    times.tick()
  times.pause()
  for seconds in (50, 3):
    time(seconds)
    times.tick()
  np.testing.assert_array_equal(times.last(10), [1, 2, 3])
  np.testing.assert_array_equal(times.last(2), [2, 3])
  assert len(times) == 3


def test_a_run_tells_its_goodput(finished_run):
  shares = [row for row in read_metrics(finished_run) if row['split'] == 'goodput'][-1]
  assert sum(shares[phase] for phase in clock_lib.PHASES) == pytest.approx(1)
  assert shares['step'] > 0 and shares['compile'] > 0
  starts = read_metrics(finished_run, 'goodput')
  assert len({row['started'] for row in starts}) == 1 and starts[-1]['step'] == 24
