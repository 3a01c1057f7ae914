"""Counts the parameters of a model, and the cost of one decoded token: parameters read, floating-point operations."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from terraformer.config import ModelConfig
from terraformer.layers.parameter import Facts, facts_of
from terraformer.models.make import abstract_model, layerwise
from terraformer.models.parameters import flatten, split_module


@dataclasses.dataclass(frozen=True)
class GroupCost:
  """The cost of one part of a model.

  Attributes:
    parameters: number of parameters.
    read: number of parameters that one decoded token reads.
  """

  parameters: int
  read: int


@dataclasses.dataclass(frozen=True)
class Cost:
  """The cost of a model and of one decoded token.

  Attributes:
    parts: parts of the model by name, such as `encoder QKV` or `output layer`.
    context: number of tokens before the decoded one.
    cache_numbers: size of the keys and values that the token reads.
    flops: floating-point operations of the decoding step, as counted by XLA.
  """

  parts: Mapping[str, GroupCost]
  context: int
  cache_numbers: int
  flops: int

  @property
  def parameters(self) -> int:
    """Number of parameters of all parts."""
    return sum(group.parameters for group in self.parts.values())

  @property
  def read(self) -> int:
    """Number of parameters that one decoded token reads."""
    return sum(group.read for group in self.parts.values())


def cost(config: ModelConfig, context: int) -> Cost:
  """Returns the cost of a model, without allocating it.

  Args:
    config: the model's configuration.
    context: number of tokens before the decoded one; with cross-attention, also the length of the source.
  """
  model = abstract_model(config)
  parts: dict[str, GroupCost] = {}
  facts = facts_of(model)
  for path, leaf in flatten(split_module(model)[1]).items():
    name = facts[path].label
    group = parts.get(name, GroupCost(0, 0))
    parts[name] = GroupCost(group.parameters + leaf.size, group.read + n_read(facts[path], leaf))
  return Cost(parts, context, cache_numbers(config, context), _flops(model, context))


def n_read(facts: Facts, leaf: jax.ShapeDtypeStruct, batch: int = 1) -> int:
  """Returns how many numbers of a parameter one step reads, for a batch of tokens that read different rows."""
  if not facts.in_step:
    return 0
  if facts.row_axis is None:
    return leaf.size
  return min(leaf.size, batch * facts.rows * leaf.size // leaf.shape[facts.row_axis])


def cache_numbers(config: ModelConfig, context: int) -> int:
  """Returns the size of the keys and values that one token reads after `context` others."""
  block = config.blocks['decoder']
  n_layers, n_attentions = config.decoder_shape
  of_source = context if config.cross_attends else 0
  return 2 * n_layers * (n_attentions * block.attention.keys_seen(context) + of_source) * block.d_model


def _flops(model, context: int) -> int:
  """Returns the floating-point operations of one step after a source of `context` tokens."""
  structure = jax.eval_shape(layerwise, model)

  def prefill(model, inputs_BxS):
    return model.prefill(inputs_BxS, 1)

  inputs_BxS = jax.ShapeDtypeStruct((1, context), jnp.int32)
  cache = jax.eval_shape(prefill, structure, inputs_BxS)
  step = jax.jit(lambda model, token_B, cache: model.step(token_B, cache))
  analysis = step.lower(structure, jax.ShapeDtypeStruct((1,), jnp.int32), cache).cost_analysis()
  return int(analysis['flops'])
