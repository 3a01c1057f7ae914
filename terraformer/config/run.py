"""Everything that a run is, and how its model is decoded with."""

import dataclasses
import math

from terraformer.config.base import Checked, expect
from terraformer.config.data import DataConfig
from terraformer.config.model import ModelConfig, TerraformerConfig
from terraformer.config.train import TrainConfig

CACHE_DTYPES = ('float32', 'bfloat16', 'int8')
_MOST_BEAMS = 1024  # each has a cache of its own
_MOST_TOKENS = 2**31 - 1  # of a batch: JAX counts places of an array in 32 bits


@dataclasses.dataclass(frozen=True)
class RunConfig(Checked):
  """Everything that a run is: the model, its data and its training."""

  model: ModelConfig = TerraformerConfig()
  data: DataConfig = DataConfig()
  train: TrainConfig = TrainConfig()

  def check(self):
    longest = self.model.positions_for(self.data.inputs_length, self.data.targets_length)
    expect(
      self.model.max_length >= longest,
      f'{type(self.model).__name__}.max_length: expected at least the longest example ({longest}), '
      f'found {self.model.max_length}',
    )
    n_tokens = self.train.batch_size * max(self.data.lengths.values())
    expect(
      n_tokens <= _MOST_TOKENS,
      f'TrainConfig.batch_size: expected a batch of at most {_MOST_TOKENS} tokens, found {n_tokens}',
    )

  def require_source(self) -> None:
    """Raises UserError where the model reads a source and the data have none; data can be prepared all the same."""
    expect(
      self.data.inputs_length > 0 or not self.model.needs_source,
      f'{type(self.model).__name__} reads a source, and the data have none (DataConfig.inputs_length is 0); set '
      'RunConfig.model = @config.LanguageModelConfig()',
    )


@dataclasses.dataclass(frozen=True)
class DecodeConfig(Checked):
  """How text is generated.

  Attributes:
    max_tokens: tokens that are generated at most; None for as many as the model was trained on.
    temperature: of the softmax that tokens are drawn from; 0 takes the likeliest.
    top_k: draws from so many likeliest tokens alone; 0 for all.
    top_p: draws from the likeliest tokens that together have this probability (nucleus sampling).
    seed: of the draws; every text of a batch draws as if it were alone.
    beams: hypotheses of beam search, which ends with as many finished ones; 1 for none.
    length_penalty: of beam search: a hypothesis of n tokens has its log-probability divided by
      ((5 + n) / 6) ** length_penalty (Wu et al., 2016).
    no_repeat_ngram: no sequence of so many tokens is written twice; 0 for no limit.
    stop: strings before which the text ends.
    cache_dtype: of keys and values: float32, bfloat16 or int8 (each with a scale of its own).
  """

  max_tokens: int | None = None
  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0
  seed: int = 0
  beams: int = 1
  length_penalty: float = 0.6
  no_repeat_ngram: int = 0
  stop: tuple[str, ...] = ()
  cache_dtype: str = 'float32'

  # Their extremes have a meaning: all tokens, the likeliest, no limit.
  _wide = ('max_tokens', 'temperature', 'top_k', 'top_p', 'seed', 'no_repeat_ngram')

  def check(self):
    counts = ('temperature', 'top_k', 'no_repeat_ngram')
    self._at_least(0, *counts, *([] if self.max_tokens is None else ['max_tokens']))
    self._seed('seed')
    self._between(1, _MOST_BEAMS, 'beams')
    expect(self.temperature < math.inf, f'DecodeConfig.temperature: expected a finite number, found {self.temperature}')
    expect(0 < self.top_p <= 1, f'DecodeConfig.top_p: expected more than 0 and at most 1, found {self.top_p}')
    expect(
      self.cache_dtype in CACHE_DTYPES,
      f'DecodeConfig.cache_dtype: expected {", ".join(CACHE_DTYPES)}, found {self.cache_dtype!r:.40}',
    )
    expect(all(self.stop), 'DecodeConfig.stop: expected strings, found an empty one')
    expect(
      self.beams == 1 or self.temperature == 0,
      f'DecodeConfig.temperature: expected 0 with several beams, found {self.temperature}',
    )
