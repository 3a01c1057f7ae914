"""The compiled functions of decoding: weights and cache are arguments, the cache is donated.

B batch, S source time, T tokens there is room for, W beams, V vocabulary.
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

# Positions of a source whose scores, or units of a feed-forward block, are alive at one time.
_CHUNK = 512
# Numbers of a tensor that is not worth an argument of its own.
_SMALL = 1 << 12

# A step is many small operations in a row: XLA then orders them so that independent ones run on several cores.
COMPILER_OPTIONS = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_CONCURRENCY_OPTIMIZED'}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplingState:
  """What decoding keeps from one token to the next.

  Attributes:
    state: the model's decode state.
    generated: the tokens so far, where a logits processor needs them; else None.
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
  """The weights that a step reads; an argument of a compiled program costs time, however small it is.

  Attributes:
    large: name -> tensor, where it lies.
    small: all others, float32, one behind the other.
  """

  large: dict[str, jax.Array]
  small: jax.Array


def decoding_form(config: ModelConfig, longest: int) -> ModelConfig:
  """The same model as it is decoded with: float32, and long sources a chunk at a time; results do not change.

  Args:
    config: of the model.
    longest: tokens of an example that it was trained on, source and target together.
  """

  def bounded(block):
    attention = block.attention.decoding_form(longest, _CHUNK)
    return dataclasses.replace(block, attention=attention, ff_chunk=block.ff_chunk or _CHUNK)

  blocks = {name: bounded(block) for name, block in config.blocks.items()}
  return dataclasses.replace(config, bfloat16=False, **blocks)


def can_grow(config: ModelConfig, n_slots: int) -> bool:
  """Whether a cache that will have so many places may begin small."""
  return config.blocks['decoder'].attention.can_grow(n_slots)


def step_weights(tensors: dict[str, np.ndarray], facts: ModelFacts) -> StepWeights:
  """Those of a model's tensors that a step reads, by the facts of each; large ones are not copied."""
  read = {name: tensor for name, tensor in tensors.items() if facts[name].in_step}
  small = {name for name, tensor in read.items() if tensor.size <= _SMALL and tensor.dtype == np.float32}
  joined = np.concatenate([np.ravel(read[name]) for name in sorted(small)] or [np.zeros(0, np.float32)])
  large = {name: tensor for name, tensor in read.items() if name not in small}
  return jax.device_put(StepWeights(large, joined), may_alias=True)


def prefill(config: ModelConfig, weights: Params, prompts: Prompts, room: int, bfloat16: bool) -> DecodeState:
  """Reads the prompts and makes room for `room` tokens; each kind of layer is compiled once."""
  state = prompts.prefill(merge_module(split_module(abstract_layerwise(config))[0], weights), room)
  if bfloat16:
    state = kv_cache.cast_caches(state, jnp.bfloat16)
  # A step takes the state's buffers for its own, and none of them may be two arrays'.
  return jax.tree.map(jnp.copy, state)


@functools.partial(jax.jit, static_argnums=1)
def extend_cache(state: DecodeState, more: int) -> DecodeState:
  """The state with cache slots for `more` additional tokens."""
  return kv_cache.extend_caches(state, more)


@functools.partial(jax.jit, donate_argnums=0)
def reorder_beams(sampling: SamplingState, parent_W: jax.Array) -> SamplingState:
  """Gives each beam the state of its parent; the leading axis of an array may also be beams times heads."""

  def take(x):
    if not x.ndim:
      return x
    per_beam = x.reshape(len(parent_W), -1, *x.shape[1:])
    return per_beam[parent_W].reshape(x.shape)

  return jax.tree.map(take, sampling)


def repeat_state(sampling: SamplingState, count: int) -> SamplingState:
  """The state of one example, repeated for `count` beams."""
  return jax.tree.map(lambda x: jnp.concatenate([x] * count) if x.ndim else x, sampling)


def append_token(sampling: SamplingState, token_W: jax.Array | np.ndarray) -> SamplingState:
  """The state with one more generated token for each text or beam, where those tokens are kept."""
  return dataclasses.replace(sampling, generated=sampling.generated and sampling.generated.append(token_W))


@functools.lru_cache(maxsize=16)
def compile_step(
  config: ModelConfig, n_ids: int
) -> Callable[[StepWeights, SamplingState, jax.Array, SamplingParams], tuple[jax.Array, SamplingState]]:
  """step(weights, sampling, token_B, params) -> (next_B, sampling), compiled at its first call for each shape.

  Only ids from 1 to `n_ids` - 1 are chosen: neither padding nor ids that the vocabulary does not have.
  """

  @functools.partial(jax.jit, donate_argnames='sampling', compiler_options=COMPILER_OPTIONS)
  def step(weights, sampling, token_B, params):
    logits_BxV, state = step_model(config, weights).step(token_B, sampling.state)
    next_B = params.next_token(mask_reserved_ids(logits_BxV, n_ids), sampling.index, sampling.generated)
    return next_B, append_token(dataclasses.replace(sampling, state=state), next_B)

  return step


@functools.lru_cache(maxsize=16)
def compile_beam_step(config: ModelConfig, n_ids: int) -> Callable:
  """step(weights, sampling, token_W, score_W, processors) -> ((scores, parents, tokens), sampling).

  Returns the 2 W best continuations. A score is the sum of a hypothesis' log-probabilities. `token_W` is already among
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
  """The model as a step sees it, with shapes in the place of what it does not read; for compiled programs."""
  model = abstract_layerwise(config)
  (structure, shapes), facts = split_module(model), facts_of(model)
  flat, at = flatten(shapes), 0
  for name in sorted(name for name in flat if facts[name].in_step and name not in weights.large):
    size = flat[name].size
    flat[name] = weights.small[at : at + size].reshape(flat[name].shape)
    at += size
  return merge_module(structure, unflatten(flat | weights.large))
