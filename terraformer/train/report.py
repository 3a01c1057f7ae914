"""What people see of a run while it goes on."""

import math
import sys
import time

import jax
import numpy as np
from tqdm import tqdm

from terraformer.config import RunConfig
from terraformer.train.metrics import DivergedError, MetricsLog, TrainMetrics, summarise


class Report:
  """Progress bar, log rows and samples; a step's metrics are fetched when the next one is already on its way."""

  def __init__(self, log: MetricsLog, run: RunConfig, first_step: int, progress: bool, n_params: int):
    """Says how large the model is and where the run begins, where `progress` is wanted."""
    self._log = log
    self._tokens_a_step = run.train.batch_size * (run.data.inputs_length + run.data.targets_length)
    self._running: tuple[int, TrainMetrics, np.ndarray] | None = None
    self._fetched: list[tuple[int, TrainMetrics]] = []
    self._since = time.perf_counter()
    self._progress, self._steps = progress, run.train.steps
    self._bar: tqdm | None = None
    if progress and first_step < self._steps:
      print(f'{n_params:,} parameters, steps {first_step:,} to {self._steps:,}; compiling the step', file=sys.stderr)

  def close(self) -> None:
    """Leaves the bar as it is."""
    if self._bar is not None:
      self._bar.close()

  def note(self, step: int, metrics: TrainMetrics, index_B: np.ndarray) -> None:
    """A step was dispatched; waits for the one before.

    Raises:
      DivergedError: if that one's loss or gradient was not finite.
    """
    self.settle()
    self._running = (step, metrics, index_B)

  def settle(self) -> None:
    """Waits for the last step; raises as `note` does."""
    if self._running is None:
      return
    step, metrics, index_B = self._running
    self._running = None
    metrics = jax.device_get(metrics)
    values = {name: float(metrics.compute()[name]) for name in ('loss', 'gradient_norm')}
    if not all(map(math.isfinite, values.values())):
      raise DivergedError(
        f'step {step}: expected a finite loss and gradient norm, found {values} on the examples {index_B.tolist()}'
      )
    self._fetched.append((step, metrics))
    self._advance(step)

  def log(self) -> None:
    """Writes the means of the steps that were fetched since the last time."""
    if not self._fetched:
      return
    steps, collections = zip(*self._fetched, strict=True)
    self._fetched = []
    now = time.perf_counter()
    step_time = (now - self._since) / len(steps)
    self._since = now
    scalars = summarise(list(collections))
    scalars |= {'step_time': step_time, 'tokens_per_second': self._tokens_a_step / step_time}
    self._log.write(steps[-1], 'train', scalars)
    if self._bar is not None:
      self._bar.set_postfix_str(f'loss {scalars["loss"]:.3f}', refresh=False)

  def evaluation(self, step: int, scalars: dict[str, float]) -> None:
    """The validation split was read."""
    self._log.write(step, 'validation', scalars)
    self._say(
      f'step {step}: validation loss {scalars["loss"]:.3f}, perplexity {scalars["perplexity"]:.1f}, '
      f'accuracy {scalars["accuracy"]:.1%}'
    )

  def samples(self, step: int, samples: list[tuple[str, str, str]]) -> None:
    """Texts were generated: (source, reference, what the model wrote)."""
    rows = []
    for source, reference, written in samples:
      rows.append(f'**source** {source}\n\n**reference** {reference}\n\n**model** {written}')
      self._say(f'  reference: {reference}\n  model:     {written}')
    self._log.write_text(step, 'samples', '\n\n---\n\n'.join(rows))

  def _advance(self, step: int) -> None:
    if self._bar is None:  # begun after the first step, so that the estimate leaves compilation out
      self._bar = tqdm(
        total=self._steps,
        initial=step,
        desc='train',
        unit='step',
        disable=not self._progress,
        mininterval=0.5 if sys.stderr.isatty() else 15,
      )
    else:
      self._bar.update()

  def _say(self, text: str) -> None:
    self._since = time.perf_counter()  # an evaluation is not part of the next step's time
    if self._bar is not None and not self._bar.disable:
      self._bar.write(text, file=sys.stderr)
