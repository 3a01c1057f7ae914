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
from terraformer.training.clock import Clock
from terraformer.training.status import RESTART

# A large model compiles for many minutes, and reading a large checkpoint takes as long: so many times as much.
_PATIENCE = {'start': 4, 'compile': 4}


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
      phase, since = clock.now
      patience = _PATIENCE.get(phase, 1)
      seconds = time.monotonic() - since
      if seconds >= config.report_after * patience and reported != since:
        reported = since
        # The disk may be what hangs.
        threading.Thread(target=_report, args=(report, phase, seconds), daemon=True).start()
      if seconds >= config.exit_after * patience:
        try:
          _say(f'{phase}: expected an end within {seconds:.0f} s, found none; exiting with status {RESTART}')
        finally:
          os._exit(RESTART)  # whatever hangs would hang an orderly exit as well

  thread = threading.Thread(target=watch, name='watchdog', daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()


def _report(path: Path, phase: str, seconds: float) -> None:
  _say(f'{phase}: no progress for {seconds:.0f} s; the stacks of all threads go to {path}')
  try:
    with path.open('a') as file:
      file.write(f'\n{time.strftime("%Y-%m-%d %H:%M:%S")} {phase} for {seconds:.0f} s\n')
      file.flush()
      faulthandler.dump_traceback(file, all_threads=True)
  except OSError as error:
    _say(f'{path} cannot be written: {error.strerror.lower()}')


def _say(text: str) -> None:
  print(f'watchdog: {text}', file=sys.stderr, flush=True)
