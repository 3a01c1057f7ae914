"""The compiled functions of decoding: weights and cache are arguments, the cache is donated.

B batch, S source time, T tokens there is room for, W beams, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from terraformer.config import FullAttentionConfig, LSHAttentionConfig, ModelConfig
from terraformer.decode.bundle import abstract_unrolled
from terraformer.decode.sample import Draw, Rules, Written, limited, sample
from terraformer.models.generate import writable
from terraformer.models.parameters import Params, merge, split
from terraformer.ops.places import GrowingCache

# Positions of a source whose scores, or units of a feed-forward block, are alive at one time.
_CHUNK = 512

Cache = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Progress:
  """Where decoding stands.

  Attributes:
    cache: the model's.
    index: tokens written.
    written: those tokens, where a rule looks at them; else None.
  """

  cache: Cache
  index: jax.Array
  written: Written | None


def decoding_form(config: ModelConfig) -> ModelConfig:
  """The same model as it is decoded with: float32, and long sources a chunk at a time; results do not change."""

  def bounded(block):
    attention = block.attention
    if isinstance(attention, FullAttentionConfig):
      attention = dataclasses.replace(attention, query_chunk=attention.query_chunk or _CHUNK)
    return dataclasses.replace(block, attention=attention, ff_chunk=block.ff_chunk or _CHUNK)

  blocks = {name: bounded(block) for name, block in config.blocks.items()}
  return dataclasses.replace(config, bfloat16=False, **blocks)


def can_grow(config: ModelConfig, n_places: int) -> bool:
  """Whether a cache may begin small: not where positions are hashed, by the cache's final size."""
  attention = config.blocks['decoder'].attention
  return not isinstance(attention, LSHAttentionConfig) or n_places <= attention.full_below


def step_weights(weights: Params) -> Params:
  """Those that a step reads: all but the encoder's."""
  return {name: part for name, part in weights.items() if not name.startswith(('encoder', 'merge'))}


def prefill(config: ModelConfig, weights: Params, inputs_BxS: jax.Array, room: int, bfloat16: bool) -> Cache:
  """Reads the sources and makes room for `room` tokens; each kind of layer is compiled once."""
  cache = merge(_structure(config), weights).prefill(inputs_BxS, room)
  if bfloat16:
    cache = _each_attention(lambda each: each.stored(jnp.bfloat16), cache)
  # A step takes the cache's buffers for its own, and none of them may be two arrays'.
  return jax.tree.map(jnp.copy, cache)


@functools.partial(jax.jit, static_argnums=1)
def grow(cache: Cache, more: int) -> Cache:
  """The cache with room for so many tokens more."""
  return _each_attention(lambda each: each.grown(more), cache)


@functools.partial(jax.jit, donate_argnums=0)
def reorder(progress: Progress, parent_W: jax.Array) -> Progress:
  """Each beam's state becomes that of its parent; arrays whose leading axis is that of beams and heads as well."""

  def take(x):
    if not x.ndim:
      return x
    per_beam = x.reshape(len(parent_W), -1, *x.shape[1:])
    return per_beam[parent_W].reshape(x.shape)

  return jax.tree.map(take, progress)


def repeated(progress: Progress, count: int) -> Progress:
  """The state of one example as that of `count` equal ones."""
  return jax.tree.map(lambda x: jnp.concatenate([x] * count) if x.ndim else x, progress)


def entered(progress: Progress, token_W: jax.Array) -> Progress:
  """With a token of each beam written, where that is kept."""
  return dataclasses.replace(progress, written=progress.written and progress.written.and_then(token_W))


@functools.lru_cache(maxsize=16)
def compile_step(
  config: ModelConfig, n_ids: int, rules: Rules
) -> Callable[[Params, Progress, jax.Array, Draw], tuple[jax.Array, Progress]]:
  """step(`step_weights`, progress, token_B, draw) -> (next_B, progress), compiled at its first call for each shape."""
  advance = _advance(config)

  @functools.partial(jax.jit, donate_argnames='progress')
  def step(weights, progress, token_B, draw):
    logits_BxV, cache = advance(weights, progress.cache, token_B)
    next_B = sample(logits_BxV, n_ids, rules, draw, progress.index, progress.written)
    return next_B, Progress(cache, progress.index + 1, progress.written and progress.written.and_then(next_B))

  return step


@functools.lru_cache(maxsize=16)
def compile_beam_step(config: ModelConfig, n_ids: int, ngram: int) -> Callable:
  """step(`step_weights`, progress, token_W, score_W) -> (scores, parents and tokens of the 2 W best, progress).

  A score is the sum of a hypothesis' log-probabilities. `progress.written` has `token_W` entered.
  """
  advance = _advance(config)

  @functools.partial(jax.jit, donate_argnames='progress')
  def step(weights, progress, token_W, score_W):
    logits_WxV, cache = advance(weights, progress.cache, token_W)
    logits_WxV = writable(logits_WxV, n_ids)
    log_WxV = jax.nn.log_softmax(logits_WxV)
    if ngram:
      log_WxV = limited(log_WxV, progress.written, ngram)
    n_beams, n_tokens = log_WxV.shape
    best, place = jax.lax.top_k((log_WxV + score_W[:, None]).reshape(-1), 2 * n_beams)
    return (best, place // n_tokens, place % n_tokens), Progress(cache, progress.index + 1, progress.written)

  return step


def _advance(config: ModelConfig) -> Callable[[Params, Cache, jax.Array], tuple[jax.Array, Cache]]:
  """The model's step as a function of `step_weights`."""
  structure = _structure(config)
  absent = split(abstract_unrolled(config))[1]

  def advance(weights, cache, token_B):
    return merge(structure, absent | weights).step(token_B, cache)

  return advance


@functools.lru_cache(maxsize=8)
def _structure(config: ModelConfig):
  return split(abstract_unrolled(config))[0]


def _each_attention(change: Callable[[GrowingCache], GrowingCache], cache: Cache) -> Cache:
  is_one = lambda node: isinstance(node, GrowingCache)  # noqa: E731
  return jax.tree.map(lambda node: change(node) if is_one(node) else node, cache, is_leaf=is_one)
