"""Profiles a range of steps for TensorBoard."""

from pathlib import Path
from typing import Any

import jax

from terraformer.paths import plain


class Profiler:
  """Records from the start of one step to the end of another; each process writes its own part."""

  def __init__(self, steps: tuple[int, int] | None, directory: Path):
    """`steps` are the first and last steps, from 1; None for no profile."""
    self._first, self._last = steps or (1, 0)
    self._directory, self._running = directory, False

  def before(self, step: int) -> None:
    """Call before dispatching a step; a run that resumes inside the range starts the profile there."""
    if not self._running and self._first <= step <= self._last:
      jax.profiler.start_trace(str(plain(self._directory)))
      self._running = True

  def after(self, step: int, result: Any) -> None:
    """Call after dispatching a step that gives `result`; after the last step, waits for `result`."""
    if self._running and step >= self._last:
      jax.block_until_ready(result)
      self.close()

  def close(self) -> None:
    """Writes the recorded profile."""
    if self._running:
      jax.profiler.stop_trace()
      self._running = False
