"""The next token from logits.

B batch, V vocabulary, T tokens there is room for, G tokens of a limited sequence less one.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import DecodeConfig
from terraformer.models.generate import writable

# Beyond these a temperature, or what XLA multiplies by in its place, is 0 in float32. The draw is the same there.
_COLDEST, _HOTTEST = 1e-37, 1e30


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draw:
  """How tokens are drawn: numbers that a compiled program takes as they come.

  Attributes:
    temperature, top_p: float32; top_k, seed: int32 and uint32; as `DecodeConfig` has them.
  """

  temperature: jax.Array
  top_k: jax.Array
  top_p: jax.Array
  seed: jax.Array


@dataclasses.dataclass(frozen=True)
class Rules:
  """What is compiled into the program.

  Attributes:
    draws: whether tokens are drawn; else the likeliest is taken.
    cuts: whether `top_k` or `top_p` leaves tokens out; sorting the vocabulary takes time.
    ngram: `DecodeConfig.no_repeat_ngram`.
  """

  draws: bool
  cuts: bool
  ngram: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Written:
  """What has been written so far.

  Attributes:
    tokens_BxT: the tokens; zeros behind them.
    count: how many.
  """

  tokens_BxT: jax.Array
  count: jax.Array

  def and_then(self, token_B: jax.Array) -> 'Written':
    """With one token more."""
    tokens_BxT = jax.lax.dynamic_update_slice_in_dim(self.tokens_BxT, token_B[:, None], self.count, axis=1)
    return Written(tokens_BxT, self.count + 1)


def draw_of(config: DecodeConfig) -> Draw:
  """The numbers of a config, or the nearest that 32 bits hold."""
  temperature = min(max(config.temperature, _COLDEST), _HOTTEST)
  top_k = min(config.top_k, np.iinfo(np.int32).max)
  return Draw(jnp.float32(temperature), jnp.int32(top_k), jnp.float32(config.top_p), jnp.uint32(config.seed))


def rules_of(config: DecodeConfig) -> Rules:
  """The rules of a config."""
  return Rules(config.temperature > 0, config.top_k > 0 or config.top_p < 1, config.no_repeat_ngram)


def limited(logits_BxV: jax.Array, written: Written, ngram: int) -> jax.Array:
  """The logits with -inf at tokens that would complete a sequence of `ngram` tokens a second time."""
  batch, room = written.tokens_BxT.shape
  if ngram > room:
    return logits_BxV
  start_G = jnp.arange(ngram - 1)
  last_BxG = jnp.take(written.tokens_BxT, written.count - (ngram - 1) + start_G, axis=1, mode='clip')
  at_T = jnp.arange(room)
  window_BxTxG = jnp.take(written.tokens_BxT, at_T[:, None] + start_G, axis=1, mode='clip')
  complete_T = at_T + ngram - 1 < written.count
  repeats_BxT = (window_BxTxG == last_BxG[:, None]).all(-1) & complete_T
  following_BxT = jnp.take(written.tokens_BxT, at_T + ngram - 1, axis=1, mode='clip')
  # Where nothing repeats, padding is forbidden, which it is anyway.
  forbidden_BxT = jnp.where(repeats_BxT, following_BxT, 0)
  return logits_BxV.at[jnp.arange(batch)[:, None], forbidden_BxT].set(-jnp.inf)


def cut(logits_BxV: jax.Array, top_k: jax.Array, top_p: jax.Array) -> jax.Array:
  """The logits with -inf at all but the `top_k` likeliest tokens (0 for all), and of those at all but the likeliest
  that together have the probability `top_p`; the likeliest always stays."""
  sorted_BxV = jnp.sort(logits_BxV, axis=-1, descending=True)
  rank_V = jnp.arange(logits_BxV.shape[-1])
  sorted_BxV = jnp.where((top_k == 0) | (rank_V < top_k), sorted_BxV, -jnp.inf)
  probability_BxV = jax.nn.softmax(sorted_BxV)
  before_BxV = jnp.cumsum(probability_BxV, axis=-1) - probability_BxV
  # By its rank as well, since a `top_p` may be 0 in 32 bits.
  kept_BxV = ((before_BxV < top_p) | (rank_V == 0)) & (sorted_BxV > -jnp.inf)
  least_Bx1 = jnp.min(sorted_BxV, axis=-1, keepdims=True, where=kept_BxV, initial=jnp.inf)
  return jnp.where(logits_BxV >= least_Bx1, logits_BxV, -jnp.inf)


def sample(
  logits_BxV: jax.Array, n_ids: int, rules: Rules, draw: Draw, index: jax.Array, written: Written | None
) -> jax.Array:
  """The likeliest token, or a draw from softmax(logits / temperature); token_B.

  Every row draws with the same random numbers: what a text becomes does not depend on its neighbours.

  Args:
    logits_BxV: of the model.
    n_ids: only tokens from 1 to `n_ids` - 1 are drawn: not padding, nor ids that the vocabulary does not have.
    rules, draw: how.
    index: tokens that were drawn before.
    written: those tokens; None where no rule looks at them.
  """
  logits_BxV = writable(logits_BxV, n_ids)
  if rules.ngram:
    logits_BxV = limited(logits_BxV, written, rules.ngram)
  if not rules.draws:
    return logits_BxV.argmax(-1).astype(jnp.int32)
  # Less the largest: divided by next to nothing, that one stays 0 and the others are far below it.
  scaled_BxV = (logits_BxV - logits_BxV.max(-1, keepdims=True)) / draw.temperature
  if rules.cuts:
    scaled_BxV = cut(scaled_BxV, draw.top_k, draw.top_p)
  key = jax.random.fold_in(jax.random.key(draw.seed), index)
  return (scaled_BxV + jax.random.gumbel(key, scaled_BxV.shape[-1:])).argmax(-1).astype(jnp.int32)
