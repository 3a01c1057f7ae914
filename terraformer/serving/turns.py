"""Texts of which each has a state of its own, and whose steps are computed one after another.

All examples of XLA's caches write to the same slot, so texts of different ages cannot share one; nor can texts whose
attention hashes into buckets that depend on the text's length. Every text goes on, but no faster than if they were
decoded one by one.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from terraformer.config import DecodeConfig, ModelConfig
from terraformer.decode.engine import Engine
from terraformer.decode.prompts import Prompts
from terraformer.decode.stepping import next_tokens
from terraformer.models.cost import cache_numbers

_ITEM_BYTES = {'float32': 4, 'bfloat16': 2, 'int8': 4}  # XLA keeps 8-bit numbers as float32


class _Started:
  """A text, one step of which was started but not fetched."""

  def __init__(self, tokens: Iterator[jax.Array]):
    self.tokens = tokens
    self.pending = next(tokens, None)

  def advance(self) -> jax.Array | None:
    """Starts the next step, and returns the token of the one before."""
    token, self.pending = self.pending, next(self.tokens, None)
    return token


class Turns:
  """Texts that take turns, see `rows.Rows`."""

  def __init__(self, engine: Engine, config: ModelConfig, n_ids: int, cache_dtype: str):
    """Makes an empty set of texts.

    Args:
      engine: computes the steps.
      config: the model's configuration.
      n_ids: size of the vocabulary.
      cache_dtype: type of keys and values.
    """
    self._engine, self._config, self._n_ids, self._cache_dtype = engine, config, n_ids, cache_dtype
    self._texts: dict[Hashable, _Started] = {}

  def read(self, prompts: Prompts, config: DecodeConfig) -> _Started:
    """Reads the prompt of one text, and starts its first step."""
    return _Started(next_tokens(self._engine, self._n_ids, prompts, config))

  def join(self, key: Hashable, read: _Started) -> None:
    """Adds a text whose prompt was read."""
    self._texts[key] = read

  def leave(self, key: Hashable) -> None:
    """Removes a text, if it is there."""
    self._texts.pop(key, None)

  def step(self) -> list[tuple[Any, int]]:
    """Returns the next token of each text, and starts the step after it."""
    tokens = [(key, text.advance()) for key, text in self._texts.items()]
    return [(key, int(np.asarray(token)[0])) for key, token in tokens if token is not None]

  def clear(self) -> None:
    """Removes all texts."""
    self._texts.clear()

  def bytes_of(self, prompts: Sequence[Prompts]) -> int:
    """Returns the bytes of the texts' keys and values, each at its full length."""
    lengths = [one.tokens_BxS.shape[1] + one.n_new for one in prompts]
    return _ITEM_BYTES[self._cache_dtype] * sum(cache_numbers(self._config, length) for length in lengths)

  def warm_up(self) -> None:
    """Does nothing: the steps of each length of a prompt are other programs, compiled when such a prompt is read."""
