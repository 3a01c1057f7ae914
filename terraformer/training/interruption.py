"""Stopping a run without damage: the first signal asks, a second one insists.

Several processes must stop at the same step. There JAX's preemption service takes SIGTERM, which is also how a cloud
announces maintenance, and agrees on a step that all of them have yet to reach.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from jax.experimental import multihost_utils

from terraformer.training import hosts


class Interruption:
  """Whether somebody asked the run to stop."""

  def __init__(self):
    self.signal: signal.Signals | None = None
    self.pressed = False  # Ctrl-C, in this process of several
    self._asked = 0

  def now(self) -> bool:
    """Whether the run is to stop; of several processes each asks after every step, and all get the same answer."""
    # The service counts: it stops all at the number after the highest that any has asked with. Steps would not do, for
    # they go back where a run does, and of a run that goes on they begin beyond what is agreed before the first.
    self._asked += 1
    if hosts.are_several() and multihost_utils.reached_preemption_sync_point(self._asked):
      self.signal = signal.SIGINT if self.pressed else signal.SIGTERM
    return self.signal is not None


@contextlib.contextmanager
def interruption() -> Iterator[Interruption]:
  """While it is open, SIGINT and SIGTERM are noted once, and do what they did before from then on."""
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
    if several:  # the others are to hear of it
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
