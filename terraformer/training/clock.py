"""Measures where the wall time of a run goes."""

import collections
import contextlib
import itertools
import time
from collections.abc import Iterator

import numpy as np

# The phases of a run. Only `step` makes progress; its time includes waiting for the device.
PHASES = ('start', 'compile', 'input', 'step', 'log', 'checkpoint', 'evaluation')
# The phases that the loop adds to a step.
OVERHEADS = ('input', 'log', 'checkpoint')


class Clock:
  """Seconds per phase; exactly one phase is current at any moment.

  Attributes:
    now: the current phase, and when it began or was last seen alive, by `time.monotonic`.
    started: creation time of the clock, in seconds since 1970.
  """

  def __init__(self):
    self.now = 'start', time.monotonic()
    self.started = time.time()
    self._seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)

  def enter(self, phase: str) -> None:
    """Ends the current phase and begins another."""
    (before, began), now = self.now, time.monotonic()
    self._seconds[before] += now - began
    self.now = phase, now

  def alive(self) -> None:
    """Restarts the current phase, which tells the watchdog that it is not hung."""
    self.enter(self.now[0])

  @contextlib.contextmanager
  def during(self, phase: str) -> Iterator[None]:
    """Enters a phase inside another, which continues afterwards."""
    before, _ = self.now
    self.enter(phase)
    try:
      yield
    finally:
      self.enter(before)

  def seconds(self) -> dict[str, float]:
    """Returns the seconds of every phase up to now."""
    self.alive()
    return dict(self._seconds)


def goodput(seconds: dict[str, float]) -> dict[str, float]:
  """Returns the share of each phase in the wall time."""
  total = sum(seconds.values()) or 1.0
  return {phase: value / total for phase, value in seconds.items()}


def overhead(seconds: dict[str, float]) -> float:
  """Returns the time for input, logging and checkpoints as a share of the time in steps."""
  return sum(seconds[phase] for phase in OVERHEADS) / max(seconds['step'], 1e-9)


class StepTimes:
  """Wall times from the end of each step to the end of the next, for the last `capacity` steps."""

  def __init__(self, capacity: int = 1_000_000):
    self._seconds: collections.deque[float] = collections.deque(maxlen=capacity)
    self._last: float | None = None

  def tick(self) -> None:
    """Records the end of a step."""
    now = time.monotonic()
    if self._last is not None:
      self._seconds.append(now - self._last)
    self._last = now

  def pause(self) -> None:
    """Excludes the time until the next `tick`."""
    self._last = None

  def __len__(self) -> int:
    return len(self._seconds)

  def last(self, n: int) -> np.ndarray:
    """Returns the seconds of at most the last `n` steps."""
    return np.array(list(itertools.islice(reversed(self._seconds), n))[::-1])
