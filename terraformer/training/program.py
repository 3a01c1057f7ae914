"""Jitted functions whose compilation is timed separately from their execution."""

from collections.abc import Callable
from typing import Any

import jax

from terraformer.training.clock import Clock


class Program:
  """A function compiled on its first call, only for arguments with those shapes and shardings."""

  def __init__(self, function: Callable, clock: Clock, **options: Any):
    """`options` are those of `jax.jit`."""
    self._jitted, self._clock = jax.jit(function, **options), clock
    self._compiled: Callable | None = None

  def __call__(self, *arguments: Any) -> Any:
    """Returns the function's result, which the device may still be computing."""
    if self._compiled is None:
      with self._clock.during('compile'):
        self._compiled = self._jitted.lower(*arguments).compile()
    return self._compiled(*arguments)
