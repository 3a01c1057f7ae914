"""A training run: how long, how fast, what is kept, and what happens when something goes wrong."""

import dataclasses

from terraformer.config.base import Checked, divides, expect
from terraformer.config.mesh import MeshConfig
from terraformer.config.optimizer import AdafactorConfig, OptimizerConfig

_LEAST_WAIT = 0.01  # seconds: a tenth of it is what the watchdog sleeps


@dataclasses.dataclass(frozen=True)
class InitFromConfig(Checked):
  """Parameters that a new run begins with: those of another run, whose optimiser state and step stay behind.

  A parameter that is in one of the two alone, or of another shape, stops the run unless it is named here.

  Attributes:
    workdir: of the other run.
    step: which of its checkpoints; 0 for the newest.
    fresh: patterns (`decoder.forgets.*`) of parameters that keep their random values, whatever the other run has.
    left_over: patterns of the other run's parameters that are not taken.
  """

  workdir: str = ''
  step: int = 0
  fresh: tuple[str, ...] = ()
  left_over: tuple[str, ...] = ()

  def check(self):
    self._at_least(0, 'step')
    expect(bool(self.workdir), 'InitFromConfig.workdir: expected the folder of a run, found an empty string')


@dataclasses.dataclass(frozen=True)
class DivergenceConfig(Checked):
  """When a run counts as diverged, and what follows. A loss or a gradient that is not finite always counts.

  Attributes:
    max_rise: nats by which a step's loss may exceed the mean of the steps before it; inf to let any spike pass.
    window: how many steps that mean is over; until there are so many, no spike is seen.
    max_skipped: batches that the run may leave out: it goes back to its newest checkpoint and on without the batch at
      which it diverged. 0 stops it instead.
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
  """What happens when a step, a batch or a save does not come to its end. Compilation is not watched.

  Attributes:
    report_after: seconds after which it is reported, with the stack of every thread.
    exit_after: seconds after which the process gives up and asks to be started again; inf to wait for ever.
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
  """What a run keeps.

  Attributes:
    every: steps between two checkpoints.
    keep: newest checkpoints that are kept.
    older_if_damaged: whether a run whose newest checkpoint is damaged goes on from the newest that is whole; else it
      stops. The damaged one is set aside, not removed.
    best: whether the checkpoint with the lowest validation loss is kept in `best` in the run's folder, too.
    permanent_every: steps between two checkpoints that are kept for good; 0 for none.
    permanent_directory: where those are; empty for `permanent` in the run's folder.
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
    steps: optimiser steps in all.
    batch_size: examples a step, over all devices.
    microbatches: parts of a batch whose gradients are computed one after the other and summed, to save memory of
      activations. With 1, Adafactor and reversible stacks that forget nowhere, layers are updated inside the backward
      pass, and the gradient of all is never kept.
    seed: of parameters, noise and the order of examples.
    optimizer: Adafactor or AdamW.
    mesh: how devices are arranged.
    checkpoints: what is kept.
    init_from: a run whose parameters this one begins with; None for random ones.
    divergence: what happens when the loss is not finite, or jumps.
    watchdog: what happens when nothing happens.
    log_every, eval_every, sample_every: steps between two of each; 0 turns evaluation or samples off.
    diagnostics_every: steps between two reports on the inside of the model: gradient norms by layer, and which units
      its controllers pick.
    eval_batches: batches of the validation split that an evaluation reads at most.
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
      f'TrainConfig.eval_every: expected at least 1 with CheckpointConfig.best, found {self.eval_every}',
    )
    divides('TrainConfig.batch_size', self.batch_size, 'microbatches', self.microbatches)
