"""The XLA engine, which runs every model and is the reference for the native engine.

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
from terraformer.models.base import DecodeState, Model
from terraformer.models.parameters import Params, flatten, merge_module, split_module, unflatten
from terraformer.ops import kv_cache

# Source positions that attention and feed-forward blocks process at a time, which bounds their memory.
_CHUNK = 512
# A float32 tensor of at most this many numbers is not worth an argument of its own.
_SMALL = 1 << 12


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


@dataclasses.dataclass(frozen=True)
class XlaForward:
  """The step of a model, which takes `StepWeights`."""

  config: ModelConfig

  def __call__(self, weights: StepWeights, token_B: jax.Array, state: DecodeState) -> tuple[jax.Array, DecodeState]:
    """Returns the logits of the next token, BxV, and the state after `token_B`."""
    return step_model(self.config, weights).step(token_B, state)


class XlaEngine:
  """A model that XLA runs.

  Attributes:
    about: description of the engine, for statistics.
    forward: computes the logits of the next token.
    arguments: the first argument of `forward`.
  """

  def __init__(self, config: ModelConfig, weights: Params, why: str = ''):
    """Prepares a model for decoding.

    Args:
      config: the model's configuration for decoding, see `decoding_form`.
      weights: the weights of the layerwise model: NumPy arrays, which are not copied, or values of `decode.stored`,
        which are unpacked.
      why: why this engine was chosen, for statistics; empty if it was requested.
    """
    self.about = f'XLA ({why})' if why else 'XLA'
    self.forward = XlaForward(config)
    self._config = config
    arrays = {name: plain(value) for name, value in flatten(weights).items()}
    # JAX computes with the mapped files directly, so unused weights are never read.
    self._model = layerwise_model(config, jax.device_put(unflatten(arrays), may_alias=True))
    self.arguments = step_weights(arrays, layerwise_facts(config))

  def prefill(self, prompts: Prompts, room: int, cache_dtype: str) -> DecodeState:
    """Returns the state after the prompts, with slots for `room` new tokens."""
    # Cast before they are copied, since the float32 caches of a long source take gigabytes.
    state = kv_cache.cast_caches(prompts.prefill(self._model, room), cache_dtype)
    # A step donates the state's buffers, so no two arrays may share one.
    return jax.tree.map(jnp.copy, state)

  def can_grow(self, n_slots: int) -> bool:
    """Returns whether a cache that will need `n_slots` slots can start smaller."""
    return self._config.blocks['decoder'].attention.can_grow(n_slots)

  def extend(self, state: DecodeState, more: int) -> DecodeState:
    """Returns the state with slots for `more` additional tokens."""
    return _extend(state, more)


def decoding_form(config: ModelConfig, inputs_length: int, targets_length: int) -> ModelConfig:
  """Returns the config for decoding: float32, and long sources in chunks. The results are the same.

  Args:
    config: the model's configuration.
    inputs_length, targets_length: lengths of sources and targets in training.
  """
  lengths = config.attended_lengths(inputs_length, targets_length)

  def bounded(stack, block):
    attention = block.attention.decoding_form(lengths[stack], _CHUNK)
    return dataclasses.replace(block, attention=attention, ff_chunk=block.ff_chunk or _CHUNK)

  blocks = {stack: bounded(stack, block) for stack, block in config.blocks.items()}
  return dataclasses.replace(config, bfloat16=False, **blocks)


def step_weights(tensors: dict[str, np.ndarray], facts: ModelFacts) -> StepWeights:
  """Returns the tensors that a step reads, selected by their facts; large ones are not copied."""
  read = {name: tensor for name, tensor in tensors.items() if facts[name].in_step}
  small = {name for name, tensor in read.items() if tensor.size <= _SMALL and tensor.dtype == np.float32}
  joined = np.concatenate([np.ravel(read[name]) for name in sorted(small)] or [np.zeros(0, np.float32)])
  large = {name: tensor for name, tensor in read.items() if name not in small}
  return jax.device_put(StepWeights(large, joined), may_alias=True)


def layerwise_model(config: ModelConfig, weights: Params) -> Model:
  """Returns the layerwise model with these weights, which reads prompts and compiles each kind of layer once."""
  return merge_module(split_module(abstract_layerwise(config))[0], weights)


@functools.partial(jax.jit, static_argnums=1)
def _extend(state: DecodeState, more: int) -> DecodeState:
  return kv_cache.extend_caches(state, more)


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
