"""From a config to a model, with arrays or with shapes in their place, layers stacked or apart."""

import jax

from terraformer.config import ModelConfig
from terraformer.layers.make import maker
from terraformer.models.base import Model
from terraformer.models.stack import LayerwiseStack, Stack


def make_model(config: ModelConfig, *, key: jax.Array) -> Model:
  """The model with initial values."""
  return maker(config)(config, key=key)


def abstract_model(config: ModelConfig) -> Model:
  """The model with shapes in the place of arrays: its structure, at no cost."""
  return jax.eval_shape(lambda: make_model(config, key=jax.random.key(0)))


def layerwise(model: Model) -> Model:
  """The same model with its stacks taken apart into layers: the form that is exported and decoded with."""
  apart = jax.tree.map(lambda x: x, model)
  for name, part in vars(model).items():
    if isinstance(part, Stack):
      setattr(apart, name, LayerwiseStack(part))
  return apart
