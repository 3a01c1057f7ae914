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
from terraformer.decode.bundle import abstract_unrolled
from terraformer.decode.prompts import Prompts
from terraformer.decode.sample import Draw, Rules, Written, limited, sample
from terraformer.layers.parameter import ModelFacts, facts_of
from terraformer.models.base import DecodeState
from terraformer.models.generate import writable
from terraformer.models.parameters import Params, flatten, merge, split, unflatten
from terraformer.ops import kv_cache

# Positions of a source whose scores, or units of a feed-forward block, are alive at one time.
_CHUNK = 512
# Numbers of a tensor that is not worth an argument of its own.
_SMALL = 1 << 12

# A step is many small operations in a row: XLA then orders them so that independent ones run on several cores.
COMPILER_OPTIONS = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_CONCURRENCY_OPTIMIZED'}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Progress:
  """Where decoding stands.

  Attributes:
    state: of the model.
    written: the tokens so far, where a rule looks at them; else None.
  """

  state: DecodeState
  written: Written | None

  @property
  def index(self) -> jax.Array:
    """Tokens written."""
    return self.state.filled.place - self.state.filled.behind


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


def can_grow(config: ModelConfig, n_places: int) -> bool:
  """Whether a cache that will have so many places may begin small."""
  return config.blocks['decoder'].attention.can_grow(n_places)


def step_weights(tensors: dict[str, np.ndarray], facts: ModelFacts) -> StepWeights:
  """Those of a model's tensors that a step reads, by the facts of each; large ones are not copied."""
  read = {name: tensor for name, tensor in tensors.items() if facts[name].in_step}
  small = {name for name, tensor in read.items() if tensor.size <= _SMALL and tensor.dtype == np.float32}
  joined = np.concatenate([np.ravel(read[name]) for name in sorted(small)] or [np.zeros(0, np.float32)])
  large = {name: tensor for name, tensor in read.items() if name not in small}
  return jax.device_put(StepWeights(large, joined), may_alias=True)


def prefill(config: ModelConfig, weights: Params, prompts: Prompts, room: int, bfloat16: bool) -> DecodeState:
  """Reads the prompts and makes room for `room` tokens; each kind of layer is compiled once."""
  state = prompts.prefill(merge(split(abstract_unrolled(config))[0], weights), room)
  if bfloat16:
    state = kv_cache.stored(state, jnp.bfloat16)
  # A step takes the state's buffers for its own, and none of them may be two arrays'.
  return jax.tree.map(jnp.copy, state)


@functools.partial(jax.jit, static_argnums=1)
def grow(state: DecodeState, more: int) -> DecodeState:
  """The state with room for so many tokens more."""
  return kv_cache.grown(state, more)


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
  """With a token of each text or beam written, where that is kept."""
  return dataclasses.replace(progress, written=progress.written and progress.written.and_then(token_W))


@functools.lru_cache(maxsize=16)
def compile_step(
  config: ModelConfig, n_ids: int, rules: Rules
) -> Callable[[StepWeights, Progress, jax.Array, Draw], tuple[jax.Array, Progress]]:
  """step(weights, progress, token_B, draw) -> (next_B, progress), compiled at its first call for each shape."""

  @functools.partial(jax.jit, donate_argnames='progress', compiler_options=COMPILER_OPTIONS)
  def step(weights, progress, token_B, draw):
    logits_BxV, state = step_model(config, weights).step(token_B, progress.state)
    next_B = sample(logits_BxV, n_ids, rules, draw, progress.index, progress.written)
    return next_B, entered(dataclasses.replace(progress, state=state), next_B)

  return step


@functools.lru_cache(maxsize=16)
def compile_beam_step(config: ModelConfig, n_ids: int, ngram: int) -> Callable:
  """step(weights, progress, token_W, score_W) -> (scores, parents and tokens of the 2 W best, progress).

  A score is the sum of a hypothesis' log-probabilities. `progress.written` has `token_W` entered.
  """

  @functools.partial(jax.jit, donate_argnames='progress', compiler_options=COMPILER_OPTIONS)
  def step(weights, progress, token_W, score_W):
    logits_WxV, state = step_model(config, weights).step(token_W, progress.state)
    logits_WxV = writable(logits_WxV, n_ids)
    log_WxV = jax.nn.log_softmax(logits_WxV)
    if ngram:
      log_WxV = limited(log_WxV, progress.written, ngram)
    n_beams, n_tokens = log_WxV.shape
    best, place = jax.lax.top_k((log_WxV + score_W[:, None]).reshape(-1), 2 * n_beams)
    return (best, place // n_tokens, place % n_tokens), dataclasses.replace(progress, state=state)

  return step


def step_model(config: ModelConfig, weights: StepWeights):
  """The model as a step sees it, with shapes in the place of what it does not read; for compiled programs."""
  model = abstract_unrolled(config)
  (structure, shapes), facts = split(model), facts_of(model)
  flat, at = flatten(shapes), 0
  for name in sorted(name for name in flat if facts[name].in_step and name not in weights.large):
    size = flat[name].size
    flat[name] = weights.small[at : at + size].reshape(flat[name].shape)
    at += size
  return merge(structure, unflatten(flat | weights.large))
