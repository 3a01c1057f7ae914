"""Configurations of training runs: length, optimizer, checkpoints, and the handling of failures."""

import dataclasses

from terraformer.config.base import Checked, divides, expect
from terraformer.config.mesh import MeshConfig
from terraformer.config.optimizer import AdafactorConfig, OptimizerConfig
from terraformer.config.words import flag

_LEAST_WAIT = 0.01  # seconds; the watchdog sleeps for a tenth of the wait


@dataclasses.dataclass(frozen=True)
class InitFromConfig(Checked):
  """Initializes a new run with the parameters of another run, but not with its optimizer state or step.

  A parameter that only one of the runs has, or that has another shape, stops the run unless a pattern here matches it.

  Attributes:
    workdir: folder of the other run.
    step: step of the checkpoint to use; 0 for the newest.
    fresh: patterns (`decoder.forgets.*`) of parameters that keep their random initial values.
    left_over: patterns of parameters of the other run that are not used.
  """

  workdir: str = ''
  step: int = 0
  fresh: tuple[str, ...] = ()
  left_over: tuple[str, ...] = ()

  def check(self):
    self._at_least(0, 'step')
    named = flag('InitFromConfig.workdir', repr('RUN'))
    expect(bool(self.workdir), f'InitFromConfig.workdir is empty; name the run with {named}')


@dataclasses.dataclass(frozen=True)
class DivergenceConfig(Checked):
  """When a run counts as diverged, and what to do then. A loss or gradient that is not finite always counts.

  Attributes:
    max_rise: maximum rise, in nats, of a step's loss above the mean of the steps before it; inf allows any spike.
    window: number of steps in that mean; spikes are not detected before this many steps.
    max_skipped: maximum number of batches to skip: the run returns to its newest checkpoint, and continues without the
      batch at which it diverged. 0 stops the run instead.
  """

  max_rise: float = 4.0
  window: int = 50
  max_skipped: int = 0

  _wide = ('max_rise',)

  def check(self):
    self._at_least(1, 'window')
    self._at_least(0, 'max_skipped')
    expect(self.max_rise > 0, f'DivergenceConfig.max_rise: expected more than 0, found {self.max_rise}')


@dataclasses.dataclass(frozen=True)
class WatchdogConfig(Checked):
  """What to do when a step, a batch or a save hangs. Compilation is not watched.

  Attributes:
    report_after: seconds before it is reported, with the stack trace of every thread.
    exit_after: seconds before the process exits with a status that asks for a retry; inf to wait forever.
  """

  report_after: float = 300.0
  exit_after: float = 1800.0

  _wide = ('exit_after',)

  def check(self):
    self._at_least(_LEAST_WAIT, 'report_after')
    expect(
      self.exit_after >= self.report_after,
      f'WatchdogConfig.exit_after: expected at least report_after ({self.report_after}), found {self.exit_after}',
    )


@dataclasses.dataclass(frozen=True)
class CheckpointConfig(Checked):
  """Which checkpoints a run keeps.

  Attributes:
    every: steps between two checkpoints.
    keep: number of newest checkpoints to keep.
    older_if_damaged: whether a run whose newest checkpoint is damaged resumes from the newest intact one; otherwise it
      stops. The damaged checkpoint is renamed, not removed.
    best: whether to also keep the checkpoint with the lowest validation loss, in `best` in the run's folder.
    permanent_every: steps between two permanent checkpoints; 0 for none.
    permanent_directory: folder for permanent checkpoints; empty for `permanent` in the run's folder.
  """

  every: int = 200
  keep: int = 3
  older_if_damaged: bool = True
  best: bool = False
  permanent_every: int = 0
  permanent_directory: str = ''

  def check(self):
    self._at_least(1, 'every', 'keep')
    self._at_least(0, 'permanent_every')


@dataclasses.dataclass(frozen=True)
class TrainConfig(Checked):
  """A training run.

  Attributes:
    steps: total number of optimizer steps.
    batch_size: examples per step, over all devices.
    microbatches: number of microbatches whose gradients are computed in turn and summed, which saves memory for
      activations. With 1, Adafactor, and reversible stacks that never forget, layers are updated inside the backward
      pass, and memory never holds the whole gradient.
    seed: seed of parameters, noise and the order of examples.
    optimizer: Adafactor or AdamW.
    mesh: arrangement of devices.
    checkpoints: which checkpoints to keep.
    init_from: a run whose parameters this run starts with; None for random ones.
    divergence: what to do when the loss is not finite, or jumps.
    watchdog: what to do when a step hangs.
    log_every, eval_every, sample_every: steps between two log entries, evaluations or samples; 0 turns evaluations or
      samples off.
    diagnostics_every: steps between two reports on the inside of the model: gradient norms by layer, and the units
      that its controllers pick.
    eval_batches: maximum number of validation batches per evaluation.
  """

  steps: int = 1000
  batch_size: int = 32
  microbatches: int = 1
  seed: int = 0
  optimizer: OptimizerConfig = AdafactorConfig()
  mesh: MeshConfig = MeshConfig()
  checkpoints: CheckpointConfig = CheckpointConfig()
  init_from: InitFromConfig | None = None
  divergence: DivergenceConfig = DivergenceConfig()
  watchdog: WatchdogConfig = WatchdogConfig()
  log_every: int = 10
  eval_every: int = 200
  eval_batches: int = 8
  sample_every: int = 500
  diagnostics_every: int = 200

  _wide = ('seed',)

  def check(self):
    self._at_least(1, 'steps', 'batch_size', 'microbatches', 'log_every', 'eval_batches')
    self._at_least(0, 'eval_every', 'sample_every', 'diagnostics_every')
    self._seed('seed')
    expect(
      self.eval_every > 0 or not self.checkpoints.best,
      f'CheckpointConfig.best needs evaluations; turn them on with {flag("TrainConfig.eval_every", "200")}',
    )
    divides('TrainConfig.batch_size', self.batch_size, 'microbatches', self.microbatches)
