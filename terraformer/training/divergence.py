"""Detects a run that has diverged."""

import collections
import math

import numpy as np

from terraformer.config import DivergenceConfig


class DivergedError(RuntimeError):
  """The loss or the gradient norm is not finite, or the loss has jumped.

  Attributes:
    step: the step at which this happened; the cause is its batch or earlier steps.
  """

  def __init__(self, step: int, message: str):
    super().__init__(message)
    self.step = step


class Guard:
  """Checks the loss and the gradient norm of every step.

  Attributes:
    recent: losses of the last steps, oldest first; checkpoints store them, so a resumed run detects the same jumps.
  """

  def __init__(self, config: DivergenceConfig, recent: list[float]):
    self._config = config
    self.recent = collections.deque(recent, maxlen=config.window)

  def check(
    self, step: int, loss: float, gradient_norm: float, examples: list[int], norms: dict[str, np.ndarray]
  ) -> None:
    """Checks one step and remembers its loss.

    Args:
      step: number of the step.
      loss, gradient_norm: values for the whole batch.
      examples: ids of the examples in the batch.
      norms: gradient norms by part of the model, as `step.make_train_step` returns them.

    Raises:
      DivergedError: if the run has diverged; then the loss is not remembered.
    """
    expected = None
    if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
      expected = 'a finite loss and gradient norm'
    elif len(self.recent) == self._config.window:
      most = sum(self.recent) / len(self.recent) + self._config.max_rise
      expected = f'a loss of at most {most:.3f}' if loss > most else None
    if expected is not None:
      raise DivergedError(
        step,
        f'step {step}: expected {expected}, found loss {loss:.4g} and gradient norm {gradient_norm:.4g} on the '
        f'examples {examples}; gradient norms: {_largest(norms)}',
      )
    self.recent.append(loss)


def _largest(norms: dict[str, np.ndarray], n: int = 8) -> str:
  """Returns the parts with the largest norms, starting with those that are not finite."""
  parts = {}
  for name, values in norms.items():
    values = np.asarray(values)
    parts |= {f'{name}[{i}]': v for i, v in enumerate(values)} if values.ndim else {name: values}
  order = sorted(parts, key=lambda part: -(parts[part] if math.isfinite(parts[part]) else math.inf))
  return ', '.join(f'{part} {parts[part]:.3g}' for part in order[:n])
