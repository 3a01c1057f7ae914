"""Stops a run cleanly: the first signal requests a stop, and a second one forces it.

Several processes must stop at the same step. For them, JAX's preemption service handles SIGTERM, by which a cloud also
announces maintenance, and agrees on a step that no process has reached.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from jax.experimental import multihost_utils

from terraformer.training import hosts


class Interruption:
  """Whether the run was asked to stop."""

  def __init__(self):
    self.signal: signal.Signals | None = None
    self.pressed = False  # Ctrl-C in this process, if there are several
    self._asked = 0

  def now(self) -> bool:
    """Whether the run must stop; every process must ask after every step, and all get the same answer."""
    # The service stops all processes after the highest count that any has passed. Steps would not work as counts: they
    # decrease on a rollback, and in a resumed run they start beyond a stop agreed on before the first step.
    self._asked += 1
    if hosts.are_several() and multihost_utils.reached_preemption_sync_point(self._asked):
      self.signal = signal.SIGINT if self.pressed else signal.SIGTERM
    return self.signal is not None


@contextlib.contextmanager
def interruption() -> Iterator[Interruption]:
  """Records the first SIGINT or SIGTERM, then restores the previous handlers."""
  asked = Interruption()
  if threading.current_thread() is not threading.main_thread():
    yield asked
    return
  several = hosts.are_several()
  numbers = (signal.SIGINT,) if several else (signal.SIGINT, signal.SIGTERM)
  previous = {number: signal.getsignal(number) for number in numbers}

  def restore():
    for number, handler in previous.items():
      signal.signal(number, handler)

  def note(number, _):
    if several:  # notify the other processes
      asked.pressed = True
      os.kill(os.getpid(), signal.SIGTERM)
    else:
      asked.signal = signal.Signals(number)
    restore()

  for number in numbers:
    signal.signal(number, note)
  try:
    yield asked
  finally:
    restore()
