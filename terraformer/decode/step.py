"""The compiled functions of decoding. Weights and cache are arguments; the cache is donated.

B batch, S source time, T slots for new tokens, W beams, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import ModelConfig
from terraformer.decode.bundle import abstract_layerwise
from terraformer.decode.logits_processors import GeneratedTokens, process
from terraformer.decode.prompts import Prompts
from terraformer.decode.sampling import SamplingParams
from terraformer.layers.parameter import ModelFacts, facts_of
from terraformer.models.base import DecodeState
from terraformer.models.generate import mask_reserved_ids
from terraformer.models.parameters import Params, flatten, merge_module, split_module, unflatten
from terraformer.ops import kv_cache

# Source positions that attention and feed-forward blocks process at a time, which bounds their memory.
_CHUNK = 512
# A float32 tensor of at most this many numbers is not worth an argument of its own.
_SMALL = 1 << 12

# A step is a sequence of many small operations; with this scheduler, XLA runs independent ones on several cores.
COMPILER_OPTIONS = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_CONCURRENCY_OPTIMIZED'}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplingState:
  """The state that decoding keeps between two tokens.

  Attributes:
    state: the model's decode state.
    generated: the tokens so far if a logits processor needs them; otherwise None.
  """

  state: DecodeState
  generated: GeneratedTokens | None

  @property
  def index(self) -> jax.Array:
    """Number of tokens generated so far."""
    return self.state.filled.next_slot - self.state.filled.first_new


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepWeights:
  """The weights that a step reads. Small ones are joined, because each argument of a compiled program costs time.

  Attributes:
    large: name -> tensor, not copied.
    small: all others, float32, concatenated.
  """

  large: dict[str, jax.Array]
  small: jax.Array


def decoding_form(config: ModelConfig, longest: int) -> ModelConfig:
  """Returns the config for decoding: float32, and long sources in chunks. The results are the same.

  Args:
    config: the model's configuration.
    longest: maximum number of tokens of an example in training, source and target together.
  """

  def bounded(block):
    attention = block.attention.decoding_form(longest, _CHUNK)
    return dataclasses.replace(block, attention=attention, ff_chunk=block.ff_chunk or _CHUNK)

  blocks = {name: bounded(block) for name, block in config.blocks.items()}
  return dataclasses.replace(config, bfloat16=False, **blocks)


def can_grow(config: ModelConfig, n_slots: int) -> bool:
  """Returns whether a cache that will need `n_slots` slots can start smaller."""
  return config.blocks['decoder'].attention.can_grow(n_slots)


def step_weights(tensors: dict[str, np.ndarray], facts: ModelFacts) -> StepWeights:
  """Returns the tensors that a step reads, selected by their facts; large ones are not copied."""
  read = {name: tensor for name, tensor in tensors.items() if facts[name].in_step}
  small = {name for name, tensor in read.items() if tensor.size <= _SMALL and tensor.dtype == np.float32}
  joined = np.concatenate([np.ravel(read[name]) for name in sorted(small)] or [np.zeros(0, np.float32)])
  large = {name: tensor for name, tensor in read.items() if name not in small}
  return jax.device_put(StepWeights(large, joined), may_alias=True)


def prefill(config: ModelConfig, weights: Params, prompts: Prompts, room: int, bfloat16: bool) -> DecodeState:
  """Returns the state after the prompts, with slots for `room` new tokens; compiles each kind of layer once."""
  state = prompts.prefill(merge_module(split_module(abstract_layerwise(config))[0], weights), room)
  if bfloat16:
    state = kv_cache.cast_caches(state, jnp.bfloat16)
  # A step donates the state's buffers, so no two arrays may share one.
  return jax.tree.map(jnp.copy, state)


@functools.partial(jax.jit, static_argnums=1)
def extend_cache(state: DecodeState, more: int) -> DecodeState:
  """Returns the state with cache slots for `more` additional tokens."""
  return kv_cache.extend_caches(state, more)


@functools.partial(jax.jit, donate_argnums=0)
def reorder_beams(sampling: SamplingState, parent_W: jax.Array) -> SamplingState:
  """Returns the state with each beam replaced by its parent; the leading axis of an array may be beams times heads."""

  def take(x):
    if not x.ndim:
      return x
    per_beam = x.reshape(len(parent_W), -1, *x.shape[1:])
    return per_beam[parent_W].reshape(x.shape)

  return jax.tree.map(take, sampling)


def repeat_state(sampling: SamplingState, count: int) -> SamplingState:
  """Returns the state of one example, repeated for `count` beams."""
  return jax.tree.map(lambda x: jnp.concatenate([x] * count) if x.ndim else x, sampling)


def append_token(sampling: SamplingState, token_W: jax.Array | np.ndarray) -> SamplingState:
  """Returns the state with one more generated token for each text or beam, if it keeps generated tokens."""
  return dataclasses.replace(sampling, generated=sampling.generated and sampling.generated.append(token_W))


@functools.lru_cache(maxsize=16)
def compile_step(
  config: ModelConfig, n_ids: int
) -> Callable[[StepWeights, SamplingState, jax.Array, SamplingParams], tuple[jax.Array, SamplingState]]:
  """Returns step(weights, sampling, token_B, params) -> (next_B, sampling), compiled at its first call for each shape.

  It chooses only ids from 1 to `n_ids` - 1: neither padding nor ids that the vocabulary does not have.
  """

  @functools.partial(jax.jit, donate_argnames='sampling', compiler_options=COMPILER_OPTIONS)
  def step(weights, sampling, token_B, params):
    logits_BxV, state = step_model(config, weights).step(token_B, sampling.state)
    next_B = params.next_token(mask_reserved_ids(logits_BxV, n_ids), sampling.index, sampling.generated)
    return next_B, append_token(dataclasses.replace(sampling, state=state), next_B)

  return step


@functools.lru_cache(maxsize=16)
def compile_beam_step(config: ModelConfig, n_ids: int) -> Callable:
  """Returns step(weights, sampling, token_W, score_W, processors) -> ((scores, parents, tokens), sampling).

  It returns the 2 W best continuations. A score is the sum of a hypothesis's log-probabilities. `token_W` is already in
  `sampling.generated`.
  """

  @functools.partial(jax.jit, donate_argnames='sampling', compiler_options=COMPILER_OPTIONS)
  def step(weights, sampling, token_W, score_W, processors):
    logits_WxV, state = step_model(config, weights).step(token_W, sampling.state)
    log_WxV = jax.nn.log_softmax(mask_reserved_ids(logits_WxV, n_ids))
    log_WxV = process(processors, log_WxV, sampling.generated)
    n_beams, n_tokens = log_WxV.shape
    best, index = jax.lax.top_k((log_WxV + score_W[:, None]).reshape(-1), 2 * n_beams)
    return (best, index // n_tokens, index % n_tokens), dataclasses.replace(sampling, state=state)

  return step


def step_model(config: ModelConfig, weights: StepWeights):
  """Returns the model with the weights that a step reads, and shapes instead of all others; for compiled programs."""
  model = abstract_layerwise(config)
  (structure, shapes), facts = split_module(model), facts_of(model)
  flat, at = flatten(shapes), 0
  for name in sorted(name for name in flat if facts[name].in_step and name not in weights.large):
    size = flat[name].size
    flat[name] = weights.small[at : at + size].reshape(flat[name].shape)
    at += size
  return merge_module(structure, unflatten(flat | weights.large))
