"""Makes models from configurations: with arrays or only shapes, with stacked or separate layers."""

import jax

from terraformer.config import ModelConfig
from terraformer.layers.make import maker
from terraformer.models.base import Model
from terraformer.models.stack import LayerwiseStack, Stack


def make_model(config: ModelConfig, *, key: jax.Array) -> Model:
  """Returns a model with initial parameters."""
  return maker(config)(config, key=key)


def abstract_model(config: ModelConfig) -> Model:
  """Returns a model with shapes instead of arrays, without allocating or computing anything."""
  return jax.eval_shape(lambda: make_model(config, key=jax.random.key(0)))


def layerwise(model: Model) -> Model:
  """Returns the same model with its stacks split into separate layers, the form used for export and decoding."""
  unstacked = jax.tree.map(lambda x: x, model)
  for name, part in vars(model).items():
    if isinstance(part, Stack):
      setattr(unstacked, name, LayerwiseStack(part))
  return unstacked
