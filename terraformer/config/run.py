"""Everything that a run is, and how its model is decoded with."""

import dataclasses
import math

from terraformer.config.base import Checked, expect
from terraformer.config.data import DataConfig
from terraformer.config.model import EncoderDecoderConfig, LanguageModelConfig, TerraformerConfig
from terraformer.config.train import TrainConfig


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
