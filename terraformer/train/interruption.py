"""Stopping a run without damage: the first signal asks, a second one insists."""

import contextlib
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
  """Whether somebody asked the run to stop."""

  def __init__(self):
    self.signal: signal.Signals | None = None

  def __bool__(self) -> bool:
    return self.signal is not None


@contextlib.contextmanager
def interruption() -> Iterator[Interruption]:
  """While it is open, SIGINT and SIGTERM are noted once, and do what they did before from then on."""
  asked = Interruption()
  if threading.current_thread() is not threading.main_thread():
    yield asked
    return
  previous = {number: signal.getsignal(number) for number in SIGNALS}

  def restore():
    for number, handler in previous.items():
      signal.signal(number, handler)

  def note(number, _):
    asked.signal = signal.Signals(number)
    restore()

  for number in SIGNALS:
    signal.signal(number, note)
  try:
    yield asked
  finally:
    restore()
