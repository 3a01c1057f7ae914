"""Reports the progress of a run to the user."""

import sys
import zlib

import jax
import numpy as np
from tqdm import tqdm

from terraformer.config import TrainConfig
from terraformer.training.clock import Clock, StepTimes, goodput, overhead
from terraformer.training.diagnostics import unit_usage
from terraformer.training.divergence import Guard
from terraformer.training.metrics import NoLog, TrainMetrics, summarize
from terraformer.training.source_use import SHUFFLED
from terraformer.training.step import Norms


class Report:
  """Writes the progress bar, log lines and samples; fetches a step's metrics after the next step is dispatched."""

  def __init__(
    self,
    log: NoLog,
    config: TrainConfig,
    tokens_a_step: int,
    guard: Guard,
    clock: Clock,
    times: StepTimes,
    first_step: int,
    show_progress: bool,
  ):
    self._log, self._guard, self._clock, self._times = log, guard, clock, times
    self._first_step, self._tokens_a_step = first_step, tokens_a_step
    self._running: tuple[int, TrainMetrics, Norms, np.ndarray] | None = None
    self._fetched: list[tuple[int, TrainMetrics]] = []
    self._ids = np.zeros(0, np.int64)
    self._norms: dict[str, np.ndarray] = {}
    self._progress, self._steps, self._log_every = show_progress, config.steps, config.log_every
    self._bar: tqdm | None = None

  def close(self) -> None:
    """Closes the bar and leaves it visible."""
    if self._bar is not None:
      self._bar.close()

  def record_step(self, step: int, metrics: TrainMetrics, norms: Norms, ids_B: np.ndarray) -> None:
    """Records a dispatched step; waits for the previous one.

    Raises:
      DivergedError: if the previous step has diverged.
    """
    self.flush()
    self._running = (step, metrics, norms, ids_B)

  def flush(self) -> None:
    """Waits for the last step; raises as `record_step` does."""
    if self._running is None:
      return
    step, metrics, norms, self._ids = self._running
    self._running = None
    metrics, self._norms = jax.device_get((metrics, norms))
    values = {name: float(value) for name, value in metrics.compute().items()}
    self._guard.check(step, values['loss'], values['gradient_norm'], self._ids.tolist(), self._norms)
    self._fetched.append((step, metrics))
    self._times.tick()
    self._advance(step)
    if step % self._log_every == 0:
      with self._clock.during('log'):
        self.log()

  def log(self) -> None:
    """Writes the means over the steps since the last call; `flush` calls this every `log_every` steps."""
    if not self._fetched:
      return
    steps, collections = zip(*self._fetched, strict=True)
    self._fetched = []
    scalars = summarize(list(collections))
    times = self._times.last(len(steps))
    if len(times):
      scalars |= {'step_time': float(times.mean()), 'tokens_per_second': self._tokens_a_step / float(times.mean())}
      self._log.write_histogram(steps[-1], 'train/step_times', times)
    # The last step's examples, so that two runs can be compared.
    scalars['examples_crc32'] = zlib.crc32(self._ids.astype('<i8').tobytes())
    self._log.write(steps[-1], 'train', scalars)
    seconds = self._clock.seconds()
    self._log.write(steps[-1], 'goodput', goodput(seconds) | {'overhead': overhead(seconds)})
    row = {'started': self._clock.started, 'first_step': self._first_step, 'step': steps[-1], 'seconds': seconds}
    self._log.write_row('goodput', row)
    if self._bar is not None:
      self._bar.set_postfix_str(f'loss {scalars["loss"]:.3f}', refresh=False)

  def watch(self, step: int, counts: dict[str, np.ndarray]) -> None:
    """Writes the last step's gradient norms by layer, and how often its controller selected each unit."""
    rows = {}
    for part, values in self._norms.items():
      values = np.asarray(values)
      rows |= {f'{part}/{i:02d}': float(v) for i, v in enumerate(values)} if values.ndim else {part: float(values)}
    self._log.write(step, 'gradient_norms', rows)
    self._times.pause()  # this and what follows are not part of the next step's time
    for stack, counts_LxMxN in counts.items():
      usage = unit_usage(counts_LxMxN)
      rows = {f'{name[:-2]}/{i:02d}': float(v) for name, values in usage.items() for i, v in enumerate(values)}
      means = {f'{name[:-2]}': float(values.mean()) for name, values in usage.items()}
      self._log.write(step, f'units_{stack}', means | rows)

  def evaluation(self, step: int, scalars: dict[str, float]) -> None:
    """Reports an evaluation of the validation split."""
    self._log.write(step, 'validation', scalars)
    self._times.pause()
    beside = f' ({scalars[SHUFFLED]:.3f} with shuffled sources)' if SHUFFLED in scalars else ''
    self._say(
      f'step {step}: validation loss {scalars["loss"]:.3f}{beside}, perplexity {scalars["perplexity"]:.1f}, '
      f'accuracy {scalars["accuracy"]:.1%}'
    )

  def samples(self, step: int, samples: list[tuple[str, str, str]]) -> None:
    """Reports samples: (source, reference, generated text)."""
    self._times.pause()
    rows = []
    for source, reference, written in samples:
      rows.append(f'**source** {source}\n\n**reference** {reference}\n\n**model** {written}')
      self._say(f'  reference: {reference}\n  model:     {written}')
    self._log.write_text(step, 'samples', '\n\n---\n\n'.join(rows))

  def _say(self, text: str) -> None:
    if self._progress:
      tqdm.write(text, file=sys.stderr)

  def _advance(self, step: int) -> None:
    if self._bar is None:  # created after the first step, so that the estimate excludes compilation
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


def time_table(seconds: dict[str, float]) -> str:
  """Returns one line on where the time went; only the total time if the run had no steps left."""
  shares = ', '.join(f'{phase} {share:.1%}' for phase, share in goodput(seconds).items())
  line = f'{sum(seconds.values()):.0f} s: {shares}'
  if not seconds['step']:
    return line
  return f'{line}; overhead of the loop (input, log, checkpoint) {overhead(seconds):.1%} of the time in steps'
