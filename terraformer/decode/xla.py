"""Decoding by XLA alone: the engine that runs every model, and the reference for the native one.

B batch, S source time, V vocabulary.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import ModelConfig
from terraformer.decode.prompts import Prompts
from terraformer.decode.shapes import abstract_layerwise, layerwise_facts
from terraformer.decode.stored import plain
from terraformer.layers.parameter import ModelFacts, facts_of
from terraformer.models.base import DecodeState
from terraformer.models.parameters import Params, flatten, merge_module, split_module, unflatten
from terraformer.ops import kv_cache

# Positions of a source whose scores, or units of a feed-forward block, are alive at one time.
_CHUNK = 512
# Numbers of a tensor that is not worth an argument of its own.
_SMALL = 1 << 12


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


@dataclasses.dataclass(frozen=True)
class XlaForward:
  """The step of a model, whose arguments are `StepWeights`."""

  config: ModelConfig

  def __call__(self, weights: StepWeights, token_B: jax.Array, state: DecodeState) -> tuple[jax.Array, DecodeState]:
    """Logits BxV of the next token and the state after it."""
    return step_model(self.config, weights).step(token_B, state)


class XlaEngine:
  """A model that XLA computes.

  Attributes:
    about: the engine in words, for statistics.
    forward: gives the logits of the next token.
  """

  def __init__(self, config: ModelConfig, weights: Params, why: str = ''):
    """Opens a model.

    Args:
      config: of the decoding form.
      weights: of the layerwise model: NumPy arrays, which are not copied, or values of `decode.stored`, which are
        unpacked.
      why: why this engine was taken, for statistics; empty if it was asked for.
    """
    self.about = f'XLA ({why})' if why else 'XLA'
    self.forward = XlaForward(config)
    self._config = config
    arrays = {name: plain(value) for name, value in flatten(weights).items()}
    # Files stay mapped: arrays that are not used are never read.
    self._weights = jax.device_put(unflatten(arrays), may_alias=True)
    self._step_weights = step_weights(arrays, layerwise_facts(config))

  def arguments(self, cache_dtype: str) -> StepWeights:
    """The first argument of `forward`, whatever the type of the cache."""
    return self._step_weights

  def prefill(self, prompts: Prompts, room: int, cache_dtype: str) -> DecodeState:
    """The state after the prompts, with room for `room` tokens."""
    state = prefill(self._config, self._weights, prompts, room)
    # A step takes the state's buffers for its own, and none of them may be two arrays'.
    return jax.tree.map(jnp.copy, kv_cache.cast_caches(state, cache_dtype))

  def can_grow(self, n_slots: int) -> bool:
    """Whether a cache that will have `n_slots` slots may begin small."""
    return self._config.blocks['decoder'].attention.can_grow(n_slots)

  def extend(self, state: DecodeState, more: int) -> DecodeState:
    """The state with room for `more` additional tokens."""
    return _extend(state, more)


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


def step_weights(tensors: dict[str, np.ndarray], facts: ModelFacts) -> StepWeights:
  """Those of a model's tensors that a step reads, by the facts of each; large ones are not copied."""
  read = {name: tensor for name, tensor in tensors.items() if facts[name].in_step}
  small = {name for name, tensor in read.items() if tensor.size <= _SMALL and tensor.dtype == np.float32}
  joined = np.concatenate([np.ravel(read[name]) for name in sorted(small)] or [np.zeros(0, np.float32)])
  large = {name: tensor for name, tensor in read.items() if name not in small}
  return jax.device_put(StepWeights(large, joined), may_alias=True)


def prefill(config: ModelConfig, weights: Params, prompts: Prompts, room: int) -> DecodeState:
  """Reads the prompts and makes room for `room` tokens; each kind of layer is compiled once."""
  return prompts.prefill(merge_module(split_module(abstract_layerwise(config))[0], weights), room)


@functools.partial(jax.jit, static_argnums=1)
def _extend(state: DecodeState, more: int) -> DecodeState:
  return kv_cache.extend_caches(state, more)


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
