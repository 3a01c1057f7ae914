"""What a model consists of, and what one decoded token costs: parameters read and floating-point operations."""

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
  """One part of a model.

  Attributes:
    parameters: in all.
    read: of them by one decoded token.
  """

  parameters: int
  read: int


@dataclasses.dataclass(frozen=True)
class Cost:
  """A model and one decoded token of it.

  Attributes:
    parts: by name, `encoder QKV` or `output layer`.
    context: tokens that the token sees.
    cache_numbers: keys and values that it reads.
    flops: floating-point operations, as XLA counts them in the decoding step.
  """

  parts: Mapping[str, GroupCost]
  context: int
  cache_numbers: int
  flops: int

  @property
  def parameters(self) -> int:
    """Of all parts."""
    return sum(group.parameters for group in self.parts.values())

  @property
  def read(self) -> int:
    """Parameters that one decoded token reads."""
    return sum(group.read for group in self.parts.values())


def cost(config: ModelConfig, context: int) -> Cost:
  """Counts a model without allocating it.

  Args:
    config: of the model.
    context: tokens before the one that is decoded, and of the source where cross-attention reads one as well.
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
  """Numbers of a parameter that one step reads for a batch whose tokens share no row."""
  if not facts.in_step:
    return 0
  if facts.row_axis is None:
    return leaf.size
  return min(leaf.size, batch * facts.rows * leaf.size // leaf.shape[facts.row_axis])


def cache_numbers(config: ModelConfig, context: int) -> int:
  """Keys and values that one token reads behind `context` others."""
  block = config.blocks['decoder']
  n_layers, n_attentions = config.decoder_shape
  of_source = context if config.cross_attends else 0
  return 2 * n_layers * (n_attentions * block.attention.keys_seen(context) + of_source) * block.d_model


def _flops(model, context: int) -> int:
  """Of one step behind `context` tokens, of which the source is as long as that."""
  structure = jax.eval_shape(layerwise, model)

  def prefill(model, inputs_BxS):
    return model.prefill(inputs_BxS, 1)

  inputs_BxS = jax.ShapeDtypeStruct((1, context), jnp.int32)
  cache = jax.eval_shape(prefill, structure, inputs_BxS)
  step = jax.jit(lambda model, token_B, cache: model.step(token_B, cache))
  analysis = step.lower(structure, jax.ShapeDtypeStruct((1,), jnp.int32), cache).cost_analysis()
  return int(analysis['flops'])
