"""Reports a step that does not end, and gives up on one that never will."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from terraformer.config import WatchdogConfig
from terraformer.train.clock import Clock
from terraformer.train.status import RESTART

# A large model compiles for many minutes, and reading a large checkpoint takes as long.
_UNWATCHED = ('start', 'compile')


@contextlib.contextmanager
def watchdog(config: WatchdogConfig, clock: Clock, report: Path) -> Iterator[None]:
  """Watches `clock` from a thread of its own while it is open.

  Args:
    config: how long is too long.
    clock: whose phase should change, or be entered again.
    report: file that gets the stacks of all threads; a sentence goes to the standard error.
  """
  done = threading.Event()
  interval = min(config.report_after / 10, 10.0)

  def watch():
    reported = None
    while not done.wait(interval):
      phase, since = clock.phase, clock.since
      seconds = time.monotonic() - since
      if phase in _UNWATCHED or seconds < config.report_after:
        continue
      if reported != since:
        reported = since
        _write_stacks(report, phase, seconds)
      if seconds >= config.exit_after:
        _say(f'{phase}: expected an end within {config.exit_after:.0f} s, found none; exiting with status {RESTART}')
        os._exit(RESTART)  # whatever hangs would hang an orderly exit as well

  thread = threading.Thread(target=watch, name='watchdog', daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()


def _write_stacks(path: Path, phase: str, seconds: float) -> None:
  with path.open('a') as file:
    file.write(f'\n{time.strftime("%Y-%m-%d %H:%M:%S")} {phase} for {seconds:.0f} s\n')
    file.flush()
    faulthandler.dump_traceback(file, all_threads=True)
  _say(f'{phase}: no progress for {seconds:.0f} s; the stacks of all threads are in {path}')


def _say(text: str) -> None:
  print(f'watchdog: {text}', file=sys.stderr, flush=True)
