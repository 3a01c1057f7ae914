"""Configurations of optimizers and learning-rate schedules."""

import dataclasses
from typing import ClassVar

from terraformer.config.base import Family, expect


@dataclasses.dataclass(frozen=True)
class ScheduleConfig(Family):
  """A learning-rate schedule."""


@dataclasses.dataclass(frozen=True)
class RsqrtScheduleConfig(ScheduleConfig):
  """Linear warmup to `peak`, then decay with the inverse square root of the step (the paper's schedule).

  The defaults suit short runs of any length; the paper warms up for 10,000 of its 524,288 steps.
  """

  made_by: ClassVar = 'terraformer.training.optimizer:rsqrt_schedule'

  peak: float = 0.02
  warmup_steps: int = 100

  def check(self):
    self._at_least(0, 'peak')
    self._at_least(1, 'warmup_steps')


@dataclasses.dataclass(frozen=True)
class CosineScheduleConfig(ScheduleConfig):
  """Linear warmup to `peak`, then a half cosine down to `floor` at step `decay_steps`."""

  made_by: ClassVar = 'terraformer.training.optimizer:cosine_schedule'

  peak: float = 1e-3
  warmup_steps: int = 100
  decay_steps: int = 1000
  floor: float = 0.0

  def check(self):
    self._at_least(0, 'peak', 'floor')
    self._at_least(1, 'warmup_steps')
    expect(
      self.decay_steps > self.warmup_steps,
      f'CosineScheduleConfig.decay_steps: expected more than warmup_steps ({self.warmup_steps}), '
      f'found {self.decay_steps}',
    )
    expect(
      self.floor <= self.peak,
      f'CosineScheduleConfig.floor: expected at most peak ({self.peak}), found {self.floor}',
    )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Family):
  """An optimizer; every kind has the field `schedule`."""


@dataclasses.dataclass(frozen=True)
class AdafactorConfig(OptimizerConfig):
  """Adafactor with the paper's settings: no momentum, factored second moments, steps scaled by the parameter's size.

  Factors, clipping and scale are computed for each layer separately, also within a stack.

  Attributes:
    schedule: the learning-rate schedule.
    decay: exponent with which the decay rate of the second moment approaches 1.
    clip: maximum root mean square of an update, in units of the learning rate.
    epsilon: number added to squared gradients.
    weight_decay: weight decay per step.
    factor_from: second moments are factored if two dimensions are at least this large. The default of optax is 128,
      with which the blocks of a sparse feed-forward layer, most of the model, would not be factored.
  """

  made_by: ClassVar = 'terraformer.training.optimizer:adafactor'

  schedule: ScheduleConfig = RsqrtScheduleConfig()
  decay: float = 0.8
  clip: float = 1.0
  epsilon: float = 1e-16
  weight_decay: float = 1e-5
  factor_from: int = 64

  def check(self):
    self._probability('decay')
    self._at_least(1, 'factor_from')
    self._at_least(0, 'epsilon', 'weight_decay')
    expect(self.clip > 0, f'AdafactorConfig.clip: expected more than 0, found {self.clip}')


@dataclasses.dataclass(frozen=True)
class AdamWConfig(OptimizerConfig):
  """AdamW with gradients clipped to a global norm; biases and normalization are not decayed."""

  made_by: ClassVar = 'terraformer.training.optimizer:adamw'

  schedule: ScheduleConfig = CosineScheduleConfig()
  beta1: float = 0.9
  beta2: float = 0.98
  clip: float = 1.0
  weight_decay: float = 0.01

  def check(self):
    self._probability('beta1', 'beta2')
    self._at_least(0, 'weight_decay')
    # A beta that float32 rounds to 1 counts as 1: its moving average would never change.
    expect(
      max(self.beta1, self.beta2) < 1 - 2**-25, f'AdamWConfig: expected betas below 1, found {self.beta1}, {self.beta2}'
    )
    expect(self.clip > 0, f'AdamWConfig.clip: expected more than 0, found {self.clip}')
