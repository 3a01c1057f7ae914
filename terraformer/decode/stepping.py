"""Decodes prompts step by step with an engine, in a cache that grows.

B batch, W beams.
"""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import DecodeConfig
from terraformer.decode import step as steps
from terraformer.decode.engine import Engine
from terraformer.decode.logits_processors import GeneratedTokens
from terraformer.decode.prompts import Prompts
from terraformer.decode.sampling import SamplingParams
from terraformer.models.loop import decode_loop, one_by_one

_Tokens = jax.Array | np.ndarray
# The last tokens of all texts or beams, and the state before them -> the next tokens, and the state before those.
Advance = Callable[[_Tokens, steps.SamplingState], tuple[_Tokens, steps.SamplingState]]

# A cache starts with this many slots for new tokens and then doubles, so that a step reads few empty slots.
FIRST_ROOM = 64


def next_tokens(engine: Engine, n_ids: int, prompts: Prompts, config: DecodeConfig) -> Iterator[jax.Array]:
  """Yields token_B for each step: the next token of every text, even of texts that have ended.

  An array may not be computed yet when it is yielded.

  Args:
    engine: the engine that computes the steps.
    n_ids: size of the vocabulary.
    prompts: the prompts of the texts.
    config: how tokens are chosen, without beams.
  """
  step = steps.compile_step(engine.forward, n_ids)
  params, arguments = SamplingParams.from_config(config), engine.arguments

  def advance(token_B, sampling):
    return step(arguments, sampling, token_B, params)

  return all_steps(engine, advance, prompts, config)


def all_steps(
  engine: Engine,
  advance: Advance,
  prompts: Prompts,
  config: DecodeConfig,
  unfinished: Callable[[], bool] = lambda: True,
) -> Iterator[jax.Array]:
  """Yields the next tokens of all texts, or of all beams of one text, as `advance` computes them step by step."""
  if not prompts.n_new:
    return

  def step(index, carry):
    token_B, sampling, room = carry
    sampling, room = _with_slot(engine, sampling, room, index, prompts.n_new)
    return *advance(token_B, sampling), room

  carry = jnp.asarray(np.repeat(prompts.last_B, config.beams)), *_init_sampling(engine, prompts, config)
  for _, (token_B, _, _) in decode_loop(step, carry, prompts.n_new, lambda _: unfinished(), one_by_one):
    yield token_B


def _init_sampling(engine: Engine, prompts: Prompts, config: DecodeConfig) -> tuple[steps.SamplingState, int]:
  """Returns the state after the prompts, repeated for each beam, and the number of new tokens its cache can hold."""
  batch, length = prompts.tokens_BxS.shape
  grows = engine.can_grow(length + prompts.n_new)
  room = min(FIRST_ROOM, prompts.n_new) if grows else prompts.n_new
  state = engine.prefill(prompts, room, config.cache_dtype)
  generated = GeneratedTokens.empty(batch, prompts.n_new) if config.no_repeat_ngram else None
  sampling = steps.SamplingState(state, jnp.int32(0), generated)
  return steps.repeat_state(sampling, config.beams) if config.beams > 1 else sampling, room


def _with_slot(
  engine: Engine, sampling: steps.SamplingState, room: int, index: int, n_tokens: int
) -> tuple[steps.SamplingState, int]:
  """Returns the state with a slot for token number `index`, and the number of new tokens its cache can hold."""
  if index < room:
    return sampling, room
  more = min(room, n_tokens - room)
  return dataclasses.replace(sampling, state=engine.extend(sampling.state, more)), room + more
