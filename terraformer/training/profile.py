"""A profile of some steps, for TensorBoard."""

from pathlib import Path
from typing import Any

import jax

from terraformer.paths import plain


class Profiler:
  """Records from the beginning of one step to the end of another; every process writes its own part."""

  def __init__(self, steps: tuple[int, int] | None, directory: Path):
    """`steps` are the first and the last one, from 1; None for no profile."""
    self._first, self._last = steps or (1, 0)
    self._directory, self._running = directory, False

  def before(self, step: int) -> None:
    """A step is about to be dispatched; a run that resumes inside the range begins there."""
    if not self._running and self._first <= step <= self._last:
      jax.profiler.start_trace(str(plain(self._directory)))
      self._running = True

  def after(self, step: int, result: Any) -> None:
    """It was dispatched and gives `result`, which the last step waits for."""
    if self._running and step >= self._last:
      jax.block_until_ready(result)
      self.close()

  def close(self) -> None:
    """Writes what was recorded."""
    if self._running:
      jax.profiler.stop_trace()
      self._running = False
