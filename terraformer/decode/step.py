"""The compiled functions of decoding. Weights and cache are arguments; the cache is donated.

All engines share these functions; an engine computes the logits of the next token.

B batch, T slots for new tokens, W beams, V vocabulary.
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

# A step is a sequence of many small operations; with this scheduler, XLA runs independent ones on several cores.
COMPILER_OPTIONS = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_CONCURRENCY_OPTIMIZED'}


class State(Protocol):
  """The state that an engine keeps between two tokens: a pytree."""

  def take(self, row_W: jax.Array) -> Self:
    """Returns the state of the given batch rows, in their order; a row may occur several times."""
    ...


class Forward(Protocol):
  """Computes the logits of the next token. Equal objects compute the same, so that they share compiled programs."""

  def __hash__(self) -> int: ...

  def __call__(self, arguments: Any, token_B: jax.Array, state: Any) -> tuple[jax.Array, Any]:
    """Returns the logits of the next token, BxV, and the state after `token_B`; for compiled programs.

    Args:
      arguments: the engine's weights, or a handle to them.
      token_B: the last token of each text; 0 before the first one.
      state: the state before `token_B`, with a slot for it.
    """
    ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplingState:
  """The state that decoding keeps between two tokens.

  Attributes:
    state: the engine's state.
    index: number of tokens generated so far, int32.
    generated: those tokens if a logits processor needs them; otherwise None.
  """

  state: Any
  index: jax.Array
  generated: GeneratedTokens | None

  def take(self, row_W: jax.Array) -> 'SamplingState':
    """Returns the state of the given batch rows, in their order."""
    generated = self.generated and self.generated.take(row_W)
    return SamplingState(self.state.take(row_W), self.index, generated)

  def appended(self, token_B: jax.Array | np.ndarray) -> 'SamplingState':
    """Returns the state with one more generated token for each text, if it keeps generated tokens."""
    return dataclasses.replace(self, generated=self.generated and self.generated.append(token_B))


@functools.partial(jax.jit, donate_argnums=0)
def reorder_beams(sampling: SamplingState, parent_W: jax.Array) -> SamplingState:
  """Returns the state with each beam replaced by its parent."""
  return sampling.take(parent_W)


@functools.partial(jax.jit, static_argnums=1)
def repeat_state(sampling: SamplingState, count: int) -> SamplingState:
  """Returns the state of one text, repeated for `count` beams."""
  return sampling.take(jnp.zeros(count, jnp.int32))


@functools.lru_cache(maxsize=16)
def compile_step(
  forward: Forward, n_ids: int
) -> Callable[[Any, SamplingState, jax.Array, SamplingParams], tuple[jax.Array, SamplingState]]:
  """Returns step(arguments, sampling, token_B, params) -> (next_B, sampling), compiled at the first call of each shape.

  It chooses only ids from 1 to `n_ids` - 1: neither padding nor ids that the vocabulary does not have.
  """

  @functools.partial(jax.jit, donate_argnames='sampling', compiler_options=COMPILER_OPTIONS)
  def step(arguments, sampling, token_B, params):
    logits_BxV, state = forward(arguments, token_B, sampling.state)
    next_B = params.next_token(mask_reserved_ids(logits_BxV, n_ids), sampling.index, sampling.generated)
    return next_B, dataclasses.replace(sampling, state=state, index=sampling.index + 1).appended(next_B)

  return step


@functools.lru_cache(maxsize=16)
def compile_forward(forward: Forward) -> Callable[[Any, jax.Array, Any], tuple[jax.Array, Any]]:
  """Returns forward(arguments, token_B, state) -> (logits_BxV, state), compiled."""
  return jax.jit(
    lambda arguments, token_B, state: forward(arguments, token_B, state),
    donate_argnums=2,
    compiler_options=COMPILER_OPTIONS,
  )


@functools.lru_cache(maxsize=16)
def compile_beam_step(forward: Forward, n_ids: int) -> Callable:
  """Returns step(arguments, sampling, token_W, score_W, processors) -> ((scores, parents, tokens), sampling).

  It returns the 2 W best continuations. A score is the sum of a hypothesis's log-probabilities. `token_W` is already in
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
