"""Chooses the next token of texts that each have their own settings.

The numbers are those of `decode.sampling` for one text, computed row by row where rows are sampled, so that a text gets
the tokens that it gets alone. Settings are arrays: one program serves all of them, and skips what no row asks for.

B batch, V vocabulary, T slots for generated tokens.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import DecodeConfig
from terraformer.decode.logits_processors import KeepTop, Temperature
from terraformer.decode.sampling import SamplingParams, argmax

_MOST = np.iinfo(np.int32).max


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RowSampling:
  """How the next token of each row is chosen; scalars for one row.

  Attributes:
    temperature_B: float32; 0 takes the likeliest token.
    seed_B: uint32.
    top_k_B, top_p_B: int32 and float32, see `KeepTop`; 0 and 1 keep all tokens.
    ngram_B: int32, length of token sequences that may not repeat; 0 for no limit.
  """

  temperature_B: jax.Array
  seed_B: jax.Array
  top_k_B: jax.Array
  top_p_B: jax.Array
  ngram_B: jax.Array

  @classmethod
  def from_config(cls, config: DecodeConfig) -> 'RowSampling':
    """Returns the settings of one row."""
    clipped, keep = Temperature.from_config(config), KeepTop.from_config(config)
    return cls(
      jnp.float32(0) if clipped is None else clipped.temperature,
      jnp.uint32(config.seed),
      jnp.int32(0) if keep is None else keep.top_k,
      jnp.float32(1) if keep is None else keep.top_p,
      jnp.int32(min(config.no_repeat_ngram, _MOST)),
    )

  @classmethod
  def greedy(cls, batch: int) -> 'RowSampling':
    """Returns the settings of rows that all take the likeliest token."""
    one = cls.from_config(DecodeConfig())
    return jax.tree.map(lambda x: jnp.full(batch, x), one)

  def next_token(self, logits_BxV: jax.Array, index_B: jax.Array, generated_BxT: jax.Array) -> jax.Array:
    """Returns the next token of each row, token_B.

    Args:
      logits_BxV: the model's logits, with -inf at ids that must not be chosen.
      index_B: number of tokens that each row generated before this one.
      generated_BxT: those tokens, followed by anything.
    """
    logits_BxV = jax.lax.cond(
      (self.ngram_B > 0).any(),
      lambda logits_BxV: _without_repeats(logits_BxV, self.ngram_B, index_B, generated_BxT),
      lambda logits_BxV: logits_BxV,
      logits_BxV,
    )

    def each(logits_BxV):
      return jax.lax.map(lambda row: _token_of_row(*row), (self, logits_BxV, index_B))

    return jax.lax.cond((self.temperature_B > 0).any(), each, argmax, logits_BxV)


def _token_of_row(settings: RowSampling, logits_V: jax.Array, index: jax.Array) -> jax.Array:
  """Returns the next token of one row; `settings` holds scalars."""
  top = KeepTop(settings.top_k_B, settings.top_p_B)

  def sampled(logits_1xV):
    logits_1xV = Temperature(settings.temperature_B)(logits_1xV, None)
    keeps_all = (settings.top_k_B == 0) & (settings.top_p_B == 1)
    logits_1xV = jax.lax.cond(keeps_all, lambda x: x, lambda x: top(x, None), logits_1xV)
    return SamplingParams((), settings.seed_B).next_token(logits_1xV, index, None)

  return jax.lax.cond(settings.temperature_B > 0, sampled, argmax, logits_V[None])[0]


def _without_repeats(
  logits_BxV: jax.Array, ngram_B: jax.Array, index_B: jax.Array, generated_BxT: jax.Array
) -> jax.Array:
  """Blocks tokens that would complete an n-gram of `ngram_B` tokens a second time, as `BlockRepeatedNgrams` does."""
  batch, n_slots = generated_BxT.shape
  at_T, row_Bx1 = jnp.arange(n_slots), jnp.arange(batch)[:, None]
  before_B = ngram_B - 1  # tokens of an n-gram before its last one

  def token_at(at):
    return generated_BxT[row_Bx1, jnp.clip(at, 0, n_slots - 1)]

  def compare(number, repeats_BxT):
    last_Bx1 = token_at((index_B - before_B + number)[:, None])
    equal_BxT = token_at(at_T[None] + number) == last_Bx1
    return repeats_BxT & (equal_BxT | (number >= before_B[:, None]))

  # Not the sum of position and length, which an extreme length would make negative.
  possible_B = (ngram_B > 0) & (ngram_B <= index_B)
  complete_BxT = possible_B[:, None] & (at_T < (index_B - before_B)[:, None])
  n_compared = jnp.where(possible_B, before_B, 0).max()
  repeats_BxT = jax.lax.fori_loop(0, n_compared, compare, complete_BxT)
  # Where nothing repeats, this blocks padding, which is never chosen anyway.
  following_BxT = token_at(at_T + jnp.where(possible_B, before_B, 0)[:, None])
  return logits_BxV.at[row_Bx1, jnp.where(repeats_BxT, following_BxT, 0)].set(-jnp.inf)
