"""Reports a step that hangs, and exits if it does not recover."""

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

# Compiling a large model or reading a large checkpoint takes many minutes: multiply their limits.
_PATIENCE = {'start': 4, 'compile': 4}


@contextlib.contextmanager
def watchdog(config: WatchdogConfig, clock: Clock, report: Path) -> Iterator[None]:
  """Watches `clock` from a separate thread while the context is open.

  Args:
    config: the time limits.
    clock: clock whose phase should change or be restarted.
    report: file for the stacks of all threads; a message goes to standard error.
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
        # The disk itself may hang.
        threading.Thread(target=_report, args=(report, phase, seconds), daemon=True).start()
      if seconds >= config.exit_after * patience:
        try:
          _say(f'{phase}: not finished within {seconds:.0f} s; exiting with status {RESTART}')
        finally:
          os._exit(RESTART)  # the hang would also block an orderly exit

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
