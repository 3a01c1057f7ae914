"""Logits processors: each one changes the logits of the next token before a token is chosen.

A processor is a pytree. Its numbers are traced, so a new temperature needs no new compilation. The kinds of processors
are part of the pytree's structure, so each chain is compiled separately.

B batch, V vocabulary, T slots for generated tokens, G tokens of a blocked n-gram minus one.
"""

import dataclasses
from typing import Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import DecodeConfig

# Outside this range a temperature, or the reciprocal that XLA multiplies by instead, is 0 in float32.
_COLDEST, _HOTTEST = 1e-37, 1e30


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GeneratedTokens:
  """The tokens generated so far.

  Attributes:
    tokens_BxT: the tokens, followed by zeros.
    count: number of tokens.
  """

  tokens_BxT: jax.Array
  count: jax.Array

  @classmethod
  def empty(cls, batch: int, most: int) -> Self:
    """Returns an empty object with slots for `most` tokens."""
    return cls(jnp.zeros((batch, most), jnp.int32), jnp.int32(0))

  def append(self, token_B: jax.Array) -> 'GeneratedTokens':
    """Returns these tokens followed by `token_B`."""
    tokens_BxT = jax.lax.dynamic_update_slice_in_dim(self.tokens_BxT, token_B[:, None], self.count, axis=1)
    return GeneratedTokens(tokens_BxT, self.count + 1)

  def take(self, row_W: jax.Array) -> 'GeneratedTokens':
    """Those of some of the batch rows, in the order given."""
    return GeneratedTokens(self.tokens_BxT[row_W], self.count)


class LogitsProcessor(Protocol):
  """Changes the logits of the next token."""

  @classmethod
  def from_config(cls, config: DecodeConfig) -> Self | None:
    """Returns the processor that a config asks for, or None if it does not ask for one."""

  def __call__(self, logits_BxV: jax.Array, generated: GeneratedTokens | None) -> jax.Array:
    """Returns the processed logits, with -inf at tokens that must not be chosen."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BlockRepeatedNgrams:
  """Blocks tokens that would complete an n-gram of `size` tokens a second time."""

  size: int = dataclasses.field(metadata={'static': True})

  @classmethod
  def from_config(cls, config: DecodeConfig) -> Self | None:
    return cls(config.no_repeat_ngram) if config.no_repeat_ngram else None

  def __call__(self, logits_BxV: jax.Array, generated: GeneratedTokens | None) -> jax.Array:
    if generated is None:
      raise ValueError('blocking n-grams needs the generated tokens, not None')
    batch, n_slots = generated.tokens_BxT.shape
    if self.size > n_slots:
      return logits_BxV
    start_G = jnp.arange(self.size - 1)
    last_BxG = jnp.take(generated.tokens_BxT, generated.count - (self.size - 1) + start_G, axis=1, mode='clip')
    at_T = jnp.arange(n_slots)
    window_BxTxG = jnp.take(generated.tokens_BxT, at_T[:, None] + start_G, axis=1, mode='clip')
    complete_T = at_T + self.size - 1 < generated.count
    repeats_BxT = (window_BxTxG == last_BxG[:, None]).all(-1) & complete_T
    following_BxT = jnp.take(generated.tokens_BxT, at_T + self.size - 1, axis=1, mode='clip')
    # Where nothing repeats, this blocks padding, which is never chosen anyway.
    blocked_BxT = jnp.where(repeats_BxT, following_BxT, 0)
    return logits_BxV.at[jnp.arange(batch)[:, None], blocked_BxT].set(-jnp.inf)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Temperature:
  """Divides the logits by a temperature, a float32."""

  temperature: jax.Array

  @classmethod
  def from_config(cls, config: DecodeConfig) -> Self | None:
    """Returns the processor with the config's temperature, clipped to the range of float32; None for 0."""
    if config.temperature == 0:
      return None
    return cls(jnp.float32(min(max(config.temperature, _COLDEST), _HOTTEST)))

  def __call__(self, logits_BxV: jax.Array, generated: GeneratedTokens | None) -> jax.Array:
    # The largest logit becomes 0 and stays 0 even at a tiny temperature; all others are then far below it.
    return (logits_BxV - logits_BxV.max(-1, keepdims=True)) / self.temperature


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeepTop:
  """Keeps the `top_k` likeliest tokens (0 keeps all), then the likeliest of these whose probabilities sum to `top_p`.

  The likeliest token is always kept. One processor applies both rules because both need the sorted vocabulary, and
  sorting takes time.

  Attributes:
    top_k: int32.
    top_p: float32.
  """

  top_k: jax.Array
  top_p: jax.Array

  @classmethod
  def from_config(cls, config: DecodeConfig) -> Self | None:
    if config.top_k == 0 and config.top_p == 1:
      return None
    return cls(jnp.int32(min(config.top_k, np.iinfo(np.int32).max)), jnp.float32(config.top_p))

  def __call__(self, logits_BxV: jax.Array, generated: GeneratedTokens | None) -> jax.Array:
    sorted_BxV = jnp.sort(logits_BxV, axis=-1, descending=True)
    rank_V = jnp.arange(logits_BxV.shape[-1])
    sorted_BxV = jnp.where((self.top_k == 0) | (rank_V < self.top_k), sorted_BxV, -jnp.inf)
    probability_BxV = jax.nn.softmax(sorted_BxV)
    before_BxV = jnp.cumsum(probability_BxV, axis=-1) - probability_BxV
    # A tiny `top_p` is 0 in float32, so the likeliest token is kept by its rank.
    kept_BxV = ((before_BxV < self.top_p) | (rank_V == 0)) & (sorted_BxV > -jnp.inf)
    least_Bx1 = jnp.min(sorted_BxV, axis=-1, keepdims=True, where=kept_BxV, initial=jnp.inf)
    return jnp.where(logits_BxV >= least_Bx1, logits_BxV, -jnp.inf)


# Processors are applied in this order.
OF_ALL_MODES: tuple[type[LogitsProcessor], ...] = (BlockRepeatedNgrams,)
OF_SAMPLING: tuple[type[LogitsProcessor], ...] = (Temperature, KeepTop)


def processors_for(config: DecodeConfig, kinds: tuple[type[LogitsProcessor], ...]) -> tuple[LogitsProcessor, ...]:
  """Returns the processors of these kinds that a config asks for, in the order of `kinds`."""
  return tuple(found for kind in kinds if (found := kind.from_config(config)) is not None)


def process(
  processors: tuple[LogitsProcessor, ...], logits_BxV: jax.Array, generated: GeneratedTokens | None
) -> jax.Array:
  """Applies the processors in order and returns the logits."""
  for processor in processors:
    logits_BxV = processor(logits_BxV, generated)
  return logits_BxV
