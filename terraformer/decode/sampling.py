"""Chooses the next token: applies a chain of logits processors, then takes the likeliest token or a random one.

B batch, V vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp

from terraformer.config import DecodeConfig
from terraformer.decode.logits_processors import (
  OF_ALL_MODES,
  OF_SAMPLING,
  GeneratedTokens,
  LogitsProcessor,
  process,
  processors_for,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplingParams:
  """How the next token is chosen; an argument of compiled programs.

  Attributes:
    processors: logits processors, in the order in which they are applied.
    seed: uint32 seed for random tokens; None takes the likeliest token.
  """

  processors: tuple[LogitsProcessor, ...] = ()
  seed: jax.Array | None = None

  @classmethod
  def from_config(cls, config: DecodeConfig) -> 'SamplingParams':
    """Returns the parameters that a config asks for."""
    if config.temperature == 0:
      return cls(processors_for(config, OF_ALL_MODES))
    return cls(processors_for(config, OF_ALL_MODES + OF_SAMPLING), jnp.uint32(config.seed))

  def next_token(self, logits_BxV: jax.Array, index: jax.Array, generated: GeneratedTokens | None) -> jax.Array:
    """Returns the next token of each example, token_B.

    All examples use the same random numbers, so that a text does not depend on the others in its batch.

    Args:
      logits_BxV: the model's logits, with -inf at ids that must not be chosen.
      index: number of tokens generated before this one.
      generated: those tokens; None if no processor needs them.
    """
    logits_BxV = process(self.processors, logits_BxV, generated)
    if self.seed is None:
      return first_largest(logits_BxV)
    key = jax.random.fold_in(jax.random.key(self.seed), index)
    return first_largest(logits_BxV + jax.random.gumbel(key, logits_BxV.shape[-1:]))


def first_largest(x_BxV: jax.Array) -> jax.Array:
  """Returns the index of each row's largest number, the first of equal ones; int32, B. Of rows with NaN, returns 0.

  It equals `argmax`, which XLA computes number by number on a CPU: 0.2 ms for 32,000 logits instead of 0.03.
  """
  id_V = jnp.arange(x_BxV.shape[-1], dtype=jnp.int32)
  smaller_BxV = x_BxV < x_BxV.max(-1, keepdims=True)
  return jnp.where(smaller_BxV, x_BxV.shape[-1], id_V).min(-1)
