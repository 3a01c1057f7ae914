"""The layerwise model for decoding: one module per layer, with shapes instead of arrays."""

import functools

import jax

from terraformer.config import ModelConfig
from terraformer.layers.parameter import Facts, ModelFacts, facts_of
from terraformer.models.make import abstract_model, layerwise


@functools.lru_cache(maxsize=8)  # opening a bundle and decoding with it call this many times
def abstract_layerwise(config: ModelConfig):
  """Returns the layerwise form of a model, with shapes instead of arrays. It is cached: do not change it."""
  return jax.eval_shape(layerwise, abstract_model(config))


def layerwise_facts(config: ModelConfig) -> ModelFacts:
  """Returns the facts of the layerwise parameters, by their names in a bundle."""
  return facts_of(abstract_layerwise(config))


def read_by_xla(facts: Facts) -> bool:
  """Returns whether XLA, not a native kernel, reads one row of this parameter in every step."""
  return facts.in_step and facts.group in ('embedding', 'positions')
