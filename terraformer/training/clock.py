"""Where the wall time of a run goes."""

import collections
import contextlib
import itertools
import time
from collections.abc import Iterator

import numpy as np

# What a run does at one moment. Only `step` brings it forward; its time holds what waits for the device.
PHASES = ('start', 'compile', 'input', 'step', 'log', 'checkpoint', 'evaluation')
# What the loop adds to a step.
OVERHEADS = ('input', 'log', 'checkpoint')


class Clock:
  """Seconds a phase; at every moment one phase goes on.

  Attributes:
    now: the present one, and when it began or was last seen alive, by `time.monotonic`.
    started: when the clock was made, in seconds since 1970.
  """

  def __init__(self):
    self.now = 'start', time.monotonic()
    self.started = time.time()
    self._seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)

  def enter(self, phase: str) -> None:
    """Ends the present phase and begins another."""
    (before, began), now = self.now, time.monotonic()
    self._seconds[before] += now - began
    self.now = phase, now

  def alive(self) -> None:
    """Begins the present phase again, which tells the watchdog that it is not hung."""
    self.enter(self.now[0])

  @contextlib.contextmanager
  def during(self, phase: str) -> Iterator[None]:
    """A phase inside another one, which goes on afterwards."""
    before, _ = self.now
    self.enter(phase)
    try:
      yield
    finally:
      self.enter(before)

  def seconds(self) -> dict[str, float]:
    """Of every phase, up to now."""
    self.alive()
    return dict(self._seconds)


def goodput(seconds: dict[str, float]) -> dict[str, float]:
  """Share of each phase in the wall time."""
  total = sum(seconds.values()) or 1.0
  return {phase: value / total for phase, value in seconds.items()}


def overhead(seconds: dict[str, float]) -> float:
  """Waiting for input, logging and checkpoints, as a share of the time in steps."""
  return sum(seconds[phase] for phase in OVERHEADS) / max(seconds['step'], 1e-9)


class StepTimes:
  """Wall time from the end of each step to the end of the next; the last `capacity` of them."""

  def __init__(self, capacity: int = 1_000_000):
    self._seconds: collections.deque[float] = collections.deque(maxlen=capacity)
    self._last: float | None = None

  def tick(self) -> None:
    """A step has ended."""
    now = time.monotonic()
    if self._last is not None:
      self._seconds.append(now - self._last)
    self._last = now

  def pause(self) -> None:
    """What follows is not a step's time."""
    self._last = None

  def __len__(self) -> int:
    return len(self._seconds)

  def last(self, n: int) -> np.ndarray:
    """Seconds of the last `n` steps at most."""
    return np.array(list(itertools.islice(reversed(self._seconds), n))[::-1])
