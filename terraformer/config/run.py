"""How a model is trained and decoded with."""

import dataclasses
import math

from terraformer.config.base import Checked, expect
from terraformer.config.data import DataConfig
from terraformer.config.model import EncoderDecoderConfig, LanguageModelConfig, TerraformerConfig


@dataclasses.dataclass(frozen=True)
class RsqrtScheduleConfig(Checked):
  """Linear warm-up to `peak`, then decay by the inverse square root of the step (the paper's schedule).

  The defaults suit a short run, of whatever length; the paper warms up for 10,000 of its 524,288 steps.
  """

  peak: float = 0.02
  warmup_steps: int = 100

  def check(self):
    self._at_least(0, 'peak')
    self._at_least(1, 'warmup_steps')


@dataclasses.dataclass(frozen=True)
class CosineScheduleConfig(Checked):
  """Linear warm-up to `peak`, then a half cosine down to `floor` at step `decay_steps`."""

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


@dataclasses.dataclass(frozen=True)
class AdafactorConfig(Checked):
  """Adafactor with the paper's settings: no momentum, factored, steps scaled by the parameter's size.

  Attributes:
    schedule: of the learning rate.
    decay: exponent by which the second moment's decay rate approaches 1.
    clip: largest root mean square of an update, in units of the learning rate.
    epsilon: added to squared gradients.
    weight_decay: of a step.
    factor_from: second moments are factored where two dimensions are at least so large. optax has 128, which leaves
      the blocks of a sparse feed-forward layer, and with them most of the model, unfactored.
  """

  schedule: RsqrtScheduleConfig | CosineScheduleConfig = RsqrtScheduleConfig()
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
class AdamWConfig(Checked):
  """AdamW with gradients clipped to a global norm; biases and normalisation are not decayed."""

  schedule: RsqrtScheduleConfig | CosineScheduleConfig = CosineScheduleConfig()
  beta1: float = 0.9
  beta2: float = 0.98
  clip: float = 1.0
  weight_decay: float = 0.01

  def check(self):
    self._probability('beta1', 'beta2')
    self._at_least(0, 'weight_decay')
    expect(max(self.beta1, self.beta2) < 1, f'AdamWConfig: expected betas below 1, found {self.beta1}, {self.beta2}')
    expect(self.clip > 0, f'AdamWConfig.clip: expected more than 0, found {self.clip}')


@dataclasses.dataclass(frozen=True)
class ShardingConfig(Checked):
  """Over which axis of the mesh (`data`, `fsdp`, `model`) each named dimension of a parameter is split; None for none.

  The units of a sparse feed-forward block have no rule: a block is never split, so that its argmax is local.

  Attributes:
    embed: d_model.
    expert: experts of a mixture.
    ff: units of a dense feed-forward block.
    ff_block: blocks of a sparse one.
    heads: attention heads, all of their widths together.
    modules: modules of a multiplicative layer.
    vocab: tokens of the vocabulary.
  """

  embed: str | None = 'fsdp'
  expert: str | None = 'model'
  ff: str | None = 'model'
  ff_block: str | None = 'model'
  heads: str | None = 'model'
  modules: str | None = None
  vocab: str | None = 'model'

  def check(self):
    for field in dataclasses.fields(self):
      axis = getattr(self, field.name)
      expect(
        axis in (None, 'data', 'fsdp', 'model'),
        f"ShardingConfig.{field.name}: expected 'data', 'fsdp', 'model' or None, found {axis!r}",
      )


@dataclasses.dataclass(frozen=True)
class MeshConfig(Checked):
  """How devices are arranged; those that are left are copies that split the batch.

  Attributes:
    fsdp: devices that parameters, and the batch again, are split over.
    model: devices that wide dimensions (feed-forward blocks, heads, vocabulary) are split over.
    rules: which dimension is split over which of them.
  """

  fsdp: int = 1
  model: int = 1
  rules: ShardingConfig = ShardingConfig()

  def check(self):
    self._at_least(1, 'fsdp', 'model')


@dataclasses.dataclass(frozen=True)
class TrainConfig(Checked):
  """A training run.

  Attributes:
    steps: optimiser steps in all.
    batch_size: examples a step, over all devices.
    seed: of parameters, noise and the order of examples.
    optimizer: Adafactor or AdamW.
    mesh: how devices are arranged.
    log_every, eval_every, sample_every, checkpoint_every: steps between two of each; 0 turns evaluation or samples off.
    eval_batches: batches of the validation split that an evaluation reads at most.
    keep_checkpoints: newest checkpoints that are kept.
  """

  steps: int = 1000
  batch_size: int = 32
  seed: int = 0
  optimizer: AdafactorConfig | AdamWConfig = AdafactorConfig()
  mesh: MeshConfig = MeshConfig()
  log_every: int = 10
  eval_every: int = 200
  eval_batches: int = 8
  sample_every: int = 500
  checkpoint_every: int = 200
  keep_checkpoints: int = 3

  def check(self):
    self._at_least(1, 'steps', 'batch_size', 'log_every', 'eval_batches', 'checkpoint_every', 'keep_checkpoints')
    self._at_least(0, 'eval_every', 'sample_every', 'seed')
    expect(self.seed < 2**32, f'TrainConfig.seed: expected less than 2**32, found {self.seed}')


@dataclasses.dataclass(frozen=True)
class RunConfig(Checked):
  """Everything that a run is: the model, its data and its training."""

  model: TerraformerConfig | EncoderDecoderConfig | LanguageModelConfig = TerraformerConfig()
  data: DataConfig = DataConfig()
  train: TrainConfig = TrainConfig()

  def check(self):
    longest = self.model.positions_for(self.data.inputs_length, self.data.targets_length)
    expect(
      self.model.max_length >= longest,
      f'{type(self.model).__name__}.max_length: expected at least the longest example ({longest}), '
      f'found {self.model.max_length}',
    )


@dataclasses.dataclass(frozen=True)
class DecodeConfig(Checked):
  """How text is generated.

  Attributes:
    max_tokens: tokens that are generated at most; None for as many as the model was trained on.
    temperature: of the softmax that tokens are drawn from; 0 takes the likeliest.
    seed: of the draws.
  """

  max_tokens: int | None = None
  temperature: float = 0.0
  seed: int = 0

  def check(self):
    self._at_least(0, 'temperature', 'seed', *([] if self.max_tokens is None else ['max_tokens']))
    expect(math.isfinite(self.temperature), f'DecodeConfig.temperature: expected a number, found {self.temperature}')
    expect(self.seed < 2**32, f'DecodeConfig.seed: expected less than 2**32, found {self.seed}')
