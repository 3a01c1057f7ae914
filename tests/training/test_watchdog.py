"""A run in which nothing happens any more."""

CODE = """
import sys, time
from pathlib import Path
from terraformer.config import WatchdogConfig
from terraformer.training.clock import Clock
from terraformer.training.watchdog import watchdog

def waits_for_ever():
  time.sleep(60)

clock = Clock()
with watchdog(WatchdogConfig(report_after=0.3, exit_after=1.0), clock, Path(sys.argv[1])):
  time.sleep(1.1)  # `start`: watched with more patience
  for _ in range(8):
    clock.enter('evaluation')  # alive
    time.sleep(0.2)
  clock.enter('step')
  print('waiting', flush=True)
  waits_for_ever()
"""


def test_a_hung_step_is_reported_with_its_stack_and_ends_in_a_status_that_asks_for_a_restart(python, tmp_path):
  done = python(CODE, tmp_path / 'hung.txt', check=False)
  assert done.returncode == 75
  assert done.stdout == 'waiting\n'
  lines = done.stderr.splitlines()
  assert len(lines) == 2
  assert 'watchdog: step: no progress for 0 s; the stacks of all threads go to' in lines[0]
  assert 'watchdog: step: not finished within 1 s; exiting with status 75' in lines[1]
  assert 'waits_for_ever' in (tmp_path / 'hung.txt').read_text()
