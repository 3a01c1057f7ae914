"""The compiled functions of decoding: weights and cache are arguments, the cache is donated.

They are the same for every engine, which gives the logits of the next token.

B batch, T tokens there is room for, W beams, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.decode.logits_processors import GeneratedTokens, process
from terraformer.decode.sampling import SamplingParams
from terraformer.models.generate import mask_reserved_ids

# A step is many small operations in a row: XLA then orders them so that independent ones run on several cores.
COMPILER_OPTIONS = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_CONCURRENCY_OPTIMIZED'}


class State(Protocol):
  """What an engine keeps between tokens: a pytree."""

  def take(self, row_W: jax.Array) -> Self:
    """The state of some of the batch rows, in the order given; a row may be taken several times."""
    ...


class Forward(Protocol):
  """The next token's logits; equal objects compute the same, so that one compiled program serves them all."""

  def __hash__(self) -> int: ...

  def __call__(self, arguments: Any, token_B: jax.Array, state: Any) -> tuple[jax.Array, Any]:
    """Logits BxV of the next token and the state after it, for compiled programs.

    Args:
      arguments: the engine's weights, or what stands for them.
      token_B: the last token of each text; 0 before the first one.
      state: after the token before, with room for one more.
    """
    ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplingState:
  """What decoding keeps from one token to the next.

  Attributes:
    state: the engine's state.
    index: number of tokens generated so far, an int32.
    generated: those tokens, where a logits processor needs them; else None.
  """

  state: Any
  index: jax.Array
  generated: GeneratedTokens | None

  def take(self, row_W: jax.Array) -> 'SamplingState':
    """The state of some of the batch rows, in the order given."""
    generated = self.generated and self.generated.take(row_W)
    return SamplingState(self.state.take(row_W), self.index, generated)

  def appended(self, token_B: jax.Array | np.ndarray) -> 'SamplingState':
    """The state with one more generated token for each text, where those tokens are kept."""
    return dataclasses.replace(self, generated=self.generated and self.generated.append(token_B))


@functools.partial(jax.jit, donate_argnums=0)
def reorder_beams(sampling: SamplingState, parent_W: jax.Array) -> SamplingState:
  """Gives each beam the state of its parent."""
  return sampling.take(parent_W)


@functools.partial(jax.jit, static_argnums=1)
def repeat_state(sampling: SamplingState, count: int) -> SamplingState:
  """The state of one text, repeated for `count` beams."""
  return sampling.take(jnp.zeros(count, jnp.int32))


@functools.lru_cache(maxsize=16)
def compile_step(
  forward: Forward, n_ids: int
) -> Callable[[Any, SamplingState, jax.Array, SamplingParams], tuple[jax.Array, SamplingState]]:
  """step(arguments, sampling, token_B, params) -> (next_B, sampling), compiled at its first call for each shape.

  Only ids from 1 to `n_ids` - 1 are chosen: neither padding nor ids that the vocabulary does not have.
  """

  @functools.partial(jax.jit, donate_argnames='sampling', compiler_options=COMPILER_OPTIONS)
  def step(arguments, sampling, token_B, params):
    logits_BxV, state = forward(arguments, token_B, sampling.state)
    next_B = params.next_token(mask_reserved_ids(logits_BxV, n_ids), sampling.index, sampling.generated)
    return next_B, dataclasses.replace(sampling, state=state, index=sampling.index + 1).appended(next_B)

  return step


@functools.lru_cache(maxsize=16)
def compile_forward(forward: Forward) -> Callable[[Any, jax.Array, Any], tuple[jax.Array, Any]]:
  """forward(arguments, token_B, state) -> (logits_BxV, state), compiled."""
  return jax.jit(
    lambda arguments, token_B, state: forward(arguments, token_B, state),
    donate_argnums=2,
    compiler_options=COMPILER_OPTIONS,
  )


@functools.lru_cache(maxsize=16)
def compile_beam_step(forward: Forward, n_ids: int) -> Callable:
  """step(arguments, sampling, token_W, score_W, processors) -> ((scores, parents, tokens), sampling).

  Returns the 2 W best continuations. A score is the sum of a hypothesis' log-probabilities. `token_W` is already among
  `sampling.generated`.
  """

  @functools.partial(jax.jit, donate_argnames='sampling', compiler_options=COMPILER_OPTIONS)
  def step(arguments, sampling, token_W, score_W, processors):
    logits_WxV, state = forward(arguments, token_W, sampling.state)
    log_WxV = jax.nn.log_softmax(mask_reserved_ids(logits_WxV, n_ids))
    log_WxV = process(processors, log_WxV, sampling.generated)
    n_beams, n_tokens = log_WxV.shape
    best, index = jax.lax.top_k((log_WxV + score_W[:, None]).reshape(-1), 2 * n_beams)
    return (best, index // n_tokens, index % n_tokens), dataclasses.replace(
      sampling, state=state, index=sampling.index + 1
    )

  return step
