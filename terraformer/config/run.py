"""The configuration of a whole run, and of decoding."""

import dataclasses
import math
from typing import Any

from terraformer.config.base import Checked, expect
from terraformer.config.data import DataConfig
from terraformer.config.model import ModelConfig, TerraformerConfig
from terraformer.config.train import TrainConfig
from terraformer.config.words import flag

CACHE_DTYPES = ('float32', 'bfloat16', 'int8')
_MOST_BEAMS = 1024  # each beam has its own cache
_MOST_TOKENS = 2**31 - 1  # maximum per batch, since JAX counts array indices in 32 bits


@dataclasses.dataclass(frozen=True)
class RunConfig(Checked):
  """The configuration of a run: model, data and training."""

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
    """Raises UserError if the model needs a source and the data have none; preparing such data is still allowed."""
    expect(
      self.data.inputs_length > 0 or not self.model.needs_source,
      f'{type(self.model).__name__} reads a source, but the data have none (DataConfig.inputs_length is 0); train '
      f'a language model with {flag("RunConfig.model", "@config.LanguageModelConfig()")}',
    )


@dataclasses.dataclass(frozen=True)
class DecodeConfig(Checked):
  """How text is generated.

  Attributes:
    max_tokens: maximum number of new tokens; None for the target length in training.
    temperature: temperature of the softmax for sampling; 0 takes the likeliest token.
    top_k: samples only from this many likeliest tokens; 0 for all.
    top_p: samples only from the likeliest tokens that together have this probability (nucleus sampling).
    seed: seed for sampling; a text does not depend on the other texts in its batch.
    beams: number of beams of beam search, which stops after this many finished hypotheses; 1 turns it off.
    length_penalty: exponent of beam search's length penalty: the log-probability of a hypothesis of n tokens is divided
      by ((5 + n) / 6) ** length_penalty (Wu et al., 2016).
    no_repeat_ngram: length of token sequences that may not repeat; 0 for no limit.
    stop: strings that end the text; the text does not include them.
    cache_dtype: type of keys and values: float32, bfloat16 or int8 (with a scale for each key and value).
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

  # Extreme values of these fields are meaningful: all tokens, the likeliest, no limit.
  _wide = ('max_tokens', 'temperature', 'top_k', 'top_p', 'seed', 'no_repeat_ngram')

  @classmethod
  def migrated(cls, fields: dict[str, Any]) -> dict[str, Any]:
    if 'bfloat16_cache' not in fields:
      return fields
    kept = {name: value for name, value in fields.items() if name != 'bfloat16_cache'}
    return kept | {'cache_dtype': 'bfloat16' if fields['bfloat16_cache'] else 'float32'}

  def check(self):
    counts = ('temperature', 'top_k', 'no_repeat_ngram')
    self._at_least(0, *counts, *([] if self.max_tokens is None else ['max_tokens']))
    self._seed('seed')
    self._between(1, _MOST_BEAMS, 'beams')
    expect(self.temperature < math.inf, f'DecodeConfig.temperature: expected a finite number, found {self.temperature}')
    expect(0 < self.top_p <= 1, f'DecodeConfig.top_p: expected more than 0 and at most 1, found {self.top_p}')
    expect(
      self.cache_dtype in CACHE_DTYPES,
      f'DecodeConfig.cache_dtype: expected one of {", ".join(CACHE_DTYPES)}, found {self.cache_dtype!r:.40}',
    )
    expect(all(self.stop), 'DecodeConfig.stop: a stop string is empty; remove it')
    expect(
      self.beams == 1 or self.temperature == 0,
      f'DecodeConfig.temperature: expected 0 with beam search, found {self.temperature}',
    )
