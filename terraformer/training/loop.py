"""The training run, in the order in which things happen."""

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from terraformer.config import RunConfig, TrainConfig
from terraformer.data.batches import prefetch
from terraformer.files import UnwritableError, writing
from terraformer.paths import make_folder
from terraformer.training import checkpoint, hosts, initial, setup
from terraformer.training.batch_loader import BatchLoader, batch_number
from terraformer.training.clock import Clock, StepTimes
from terraformer.training.divergence import DivergedError, Guard
from terraformer.training.interruption import Interruption, interruption
from terraformer.training.metrics import MetricsLog, NoLog
from terraformer.training.profile import Profiler
from terraformer.training.programs import Programs
from terraformer.training.report import Report
from terraformer.training.run_checkpoints import RunCheckpoints
from terraformer.training.sharding import batch_sharding, make_mesh, require_divisible
from terraformer.training.source_use import summarize_twice
from terraformer.training.state import State
from terraformer.training.summary import write_summary
from terraformer.training.watchdog import watchdog


@dataclasses.dataclass(frozen=True)
class TrainResult:
  """How a run ended.

  Attributes:
    step: number of steps done.
    interrupted: name of the signal that stopped it early, or None.
    metrics: metrics of the last evaluation; empty if there was none.
    seconds: wall time of this process by phase (`clock.PHASES`).
  """

  step: int
  interrupted: str | None
  metrics: dict[str, float]
  seconds: dict[str, float]


def train(
  run: RunConfig,
  workdir: Path,
  *,
  gin_text: str = '',
  show_progress: bool = True,
  profile: tuple[int, int] | None = None,
) -> TrainResult:
  """Trains in `workdir` to step `run.train.steps`, resuming from its newest checkpoint if it has one.

  If `hosts.connect` joined several processes, each calls this with the same arguments.

  Args:
    run: the whole configuration.
    workdir: folder for checkpoints, metrics, TensorBoard events, plots and a summary; the same for all processes.
    gin_text: gin that recreates `run`; every checkpoint stores it for reading, and for resuming without gin files.
    show_progress: whether to show a progress bar with an estimate on standard error.
    profile: first and last step of a profile for TensorBoard.

  Raises:
    UserError: if the data do not fit the model, or the folder contains a run of another configuration.
    DivergedError: if the loss or the gradient norm is not finite, or the loss jumps, and no more batches may be
      skipped; nothing is saved after that.
    UnwritableError: if the disk is full; the message says which step is saved.
  """
  workdir = Path(workdir)
  make_folder(workdir)
  clock = Clock()
  show_progress = show_progress and hosts.is_main()
  try:
    with (
      writing(workdir),
      setup.locked(workdir),
      watchdog(run.train.watchdog, clock, workdir / hosts.per_process_name('hung.txt')),
    ):
      start = setup.start(run, workdir, gin_text, show_progress)
      mesh = make_mesh(run.train.mesh)
      require_divisible(run.train, mesh)
      sharding = batch_sharding(mesh)
      sample_size = run.data.targets_length, start.data.tokenizer.size
      programs = Programs(run.model, run.train, mesh, clock, sample_size)
      batch_loader = BatchLoader(start.data, run.train, sharding, start.skipped)
      tokens_a_step = run.train.batch_size * (run.data.inputs_length + run.data.targets_length)
      times = StepTimes()
      with (
        jax.set_mesh(mesh),
        contextlib.closing(RunCheckpoints(workdir, start.permanent, run.train.checkpoints)) as kept,
        interruption() as asked,
      ):
        training = _Training(
          run.train,
          workdir,
          start,
          programs,
          batch_loader,
          kept,
          asked,
          clock,
          times,
          tokens_a_step,
          profile,
          show_progress,
        )
        step, last_eval = training.to_its_end()
      seconds = clock.seconds()
      if hosts.is_main():
        write_summary(workdir, run, step, seconds, times, batch_loader.skipped, batch_loader.baselines())
  except UnwritableError as error:
    raise UnwritableError(f'{error}; {checkpoint.what_is_safe(workdir)}', error.number) from error
  signal = asked.signal if step < run.train.steps else None
  return TrainResult(step, signal.name if signal else None, last_eval, seconds)


@dataclasses.dataclass(frozen=True)
class _Due:
  """The actions that follow a step.

  Attributes:
    last: whether it was the last step.
    stopping: whether the run ends here on request.
    saving, keeping: whether to save a checkpoint, and a permanent one.
    watching, evaluating, sampling: whether to record diagnostics, evaluate, and generate samples.
  """

  last: bool
  stopping: bool
  saving: bool
  keeping: bool
  watching: bool
  evaluating: bool
  sampling: bool


@dataclasses.dataclass(frozen=True)
class _Training:
  """A run in its folder; the methods are in the order of their calls.

  Attributes:
    config: the length of the run, and how often it does what.
    workdir: its folder.
    start: its initial state.
    programs: its jitted functions.
    batch_loader: its batches.
    kept: its checkpoints.
    asked: whether it was asked to stop.
    clock: measures where the time goes.
    times: times of its steps.
    tokens_a_step: source and target tokens in a whole batch.
    profile: first and last step of a profile.
    show_progress: whether to show progress.
  """

  config: TrainConfig
  workdir: Path
  start: setup.Start
  programs: Programs
  batch_loader: BatchLoader
  kept: RunCheckpoints
  asked: Interruption
  clock: Clock
  times: StepTimes
  tokens_a_step: int
  profile: tuple[int, int] | None
  show_progress: bool

  def to_its_end(self) -> tuple[int, dict[str, float]]:
    """Trains until the last step or a signal, in one or more attempts; returns steps done and the last evaluation.

    Raises:
      DivergedError: if the run diverges and no more batches may be skipped.
    """
    first_step, recent_losses, diverged_at = self.start.step, self.start.recent_losses, None
    if self.show_progress and first_step < self.config.steps:
      print(
        f'{self.programs.n_parameters:,} parameters, {hosts.describe()}, '
        f'steps {first_step:,} to {self.config.steps:,}; compiling the step',
        file=sys.stderr,
      )
    while True:
      try:
        return self._attempt(first_step, recent_losses)
      except DivergedError as error:
        # The loss of a step reflects the updates of earlier steps. If a run diverges again at the same step, which now
        # reads another batch, the batch of the previous step is skipped too.
        again = error.step == diverged_at and error.step > 1
        numbers = [batch_number(error.step - 1 - back, self.batch_loader.skipped) for back in range(1 + again)]
        if len(self.batch_loader.skipped) + len(numbers) > self.config.divergence.max_skipped:
          raise
        diverged_at, message = error.step, str(error)
      # The error and its diverged state are freed here, to make room for the restored state.
      first_step, recent_losses = self._roll_back(numbers, before=diverged_at - 1 if again else None)
      if hosts.is_main():
        left_out = ' and '.join(map(str, numbers))
        print(f'{message}\nresuming from step {first_step} without batch {left_out}', file=sys.stderr)

  def _attempt(self, first_step: int, recent_losses: list[float]) -> tuple[int, dict[str, float]]:
    """Trains from a checkpoint or a fresh state to the end or a signal; returns steps done and the last evaluation.

    Raises:
      DivergedError: if the run must roll back.
    """
    state = self.kept.restore(first_step, self.programs.state) if first_step else self._fresh_state()
    guard = Guard(self.config.divergence, recent_losses)
    if first_step and self.kept.is_missing(first_step):
      # A kill interrupted its permanent copy. This is the last chance to make one before newer checkpoints replace it.
      self.kept.save_for_good(first_step, state, self._described(guard))
    log = MetricsLog(self.workdir, first_step) if hosts.is_main() else NoLog()
    report = Report(log, self.config, self.tokens_a_step, guard, self.clock, self.times, first_step, self.show_progress)
    step, last_eval = first_step, {}
    with (
      contextlib.closing(log),
      contextlib.closing(report),
      contextlib.closing(Profiler(self.profile, self.workdir / 'tensorboard')) as profiler,
      contextlib.closing(prefetch(self.batch_loader.train, first_step, self.config.steps)) as batches,
    ):
      self.clock.enter('input')  # as after each of the phases below
      for step, (ids_B, batch) in enumerate(batches, first_step + 1):
        with self.clock.during('step'):
          profiler.before(step)
          state, metrics, norms = self.programs.train(state, batch)
          profiler.after(step, metrics)
          report.record_step(step, metrics, norms, ids_B)
          due = self._due(step)
          if due.saving or due.keeping or due.watching:
            report.flush()  # a diverged state must not replace a good one
        if due.stopping or due.last:
          with self.clock.during('log'):
            report.log()
        with self.clock.during('checkpoint'):
          if due.saving:
            self.kept.save(step, state, self._described(guard))
          if due.keeping:
            self.kept.save_for_good(step, state, self._described(guard))
        if due.stopping:
          break
        with self.clock.during('evaluation'):
          if due.watching:
            report.watch(step, jax.device_get(self.programs.probe(state['params'], batch)))
          if due.evaluating:
            last_eval = self._evaluate(state)
            report.evaluation(step, last_eval)
            with self.clock.during('checkpoint'):
              self.kept.save_if_best(step, state, self._described(guard), last_eval)
          if due.sampling:
            report.samples(step, self._samples(state))
      with self.clock.during('checkpoint'):
        self.kept.wait()
      self.clock.enter('log')  # closes the log files
    return step, last_eval

  def _fresh_state(self) -> State:
    """Returns the state of a new run: random, or with parameters of another run."""
    state = self.programs.fresh_state()
    source = self.config.init_from
    if source is None:
      return state
    step, tokenizer = initial.find_step(source), self.start.data.tokenizer
    params, report = initial.take_parameters(state['params'], self.programs.facts, source, step, tokenizer.fingerprint)
    if self.show_progress:
      print(report, file=sys.stderr)
    return state | {'params': params}

  def _described(self, guard: Guard) -> dict[str, Any]:
    """Returns the description of the run so far for a checkpoint."""
    return self.start.description | {'skipped': list(self.batch_loader.skipped), 'recent_losses': list(guard.recent)}

  def _due(self, step: int) -> _Due:
    """Returns the actions after a step. Call it once per step, so that several processes agree on when to stop."""
    config = self.config
    last = step == config.steps
    stopping = self.asked.now() and not last

    def is_due(every: int) -> bool:
      return every > 0 and not stopping and (last or step % every == 0)

    return _Due(
      last=last,
      stopping=stopping,
      saving=stopping or last or self.kept.is_due(step),
      keeping=self.kept.is_missing(step),
      watching=is_due(config.diagnostics_every),
      evaluating=is_due(config.eval_every),
      sampling=is_due(config.sample_every),
    )

  def _evaluate(self, state: State) -> dict[str, float]:
    """Returns the metrics of the validation split, and the loss with shuffled sources if there are sources."""
    metrics, with_shuffled = [], []
    for batch, shuffled in self.batch_loader.held_out():
      self.clock.alive()  # gives each batch its own time limit in the watchdog
      metrics.append(self.programs.evaluate(state['params'], batch))
      if shuffled is not None:
        self.clock.alive()
        with_shuffled.append(self.programs.evaluate(state['params'], shuffled))
    return summarize_twice(metrics, with_shuffled)

  def _samples(self, state: State, n: int = 2) -> list[tuple[str, str, str]]:
    """Returns (source, reference, generated text) of the first validation examples."""
    data = self.start.data
    batch = next(iter(data.eval_batches('validation', n, n)))
    tokens_BxT = np.asarray(self.programs.sample(state['params'], batch['inputs']))
    texts = data.eval_texts('validation', n)
    return [(*pair, data.tokenizer.decode(tokens)) for pair, tokens in zip(texts, tokens_BxT.tolist(), strict=False)]

  def _roll_back(self, numbers: list[int], before: int | None) -> tuple[int, list[float]]:
    """Skips these batches from now on; returns the step to resume from and the losses before it."""
    self.times.pause()
    self.clock.enter('checkpoint')
    self.batch_loader.skipped += numbers
    return self.kept.roll_back(before)
