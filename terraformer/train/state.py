"""The train state: a plain dict of `params`, `optimizer` and `step`, made where it will live."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from terraformer.config import ModelConfig, ShardingConfig
from terraformer.layers.parameter import logical_axes
from terraformer.models.make import abstract_model, make_model
from terraformer.models.parameters import flatten, split, unflatten
from terraformer.train.sharding import parameter_sharding, replicated

State = dict[str, Any]
_RULES = ShardingConfig()


def parameter_shardings(model: nnx.Module, mesh: Mesh, rules: ShardingConfig) -> dict[str, Any]:
  """Where each parameter lies, as nested dicts."""
  shapes = flatten(split(model)[1])
  axes = {'.'.join(path): names for path, names in logical_axes(model).items()}
  return unflatten({path: parameter_sharding(mesh, rules, axes[path], shapes[path].shape) for path in shapes})


def abstract_state(
  config: ModelConfig, optimizer: optax.GradientTransformation, mesh: Mesh, rules: ShardingConfig = _RULES
) -> State:
  """Shapes, types and places of the train state; what a checkpoint is restored to."""
  model = abstract_model(config)
  _, params = split(model)
  shardings = parameter_shardings(model, mesh, rules)

  def place(shape, sharding):
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

  optimizer_state = jax.eval_shape(optimizer.init, params)
  # Moments of a parameter's own shape lie where it lies; factored ones and counters are small.
  optimizer_state = optax.tree_utils.tree_map_params(
    optimizer,
    lambda moment, shape, sharding: place(moment, sharding if moment.shape == shape.shape else replicated(mesh)),
    optimizer_state,
    params,
    shardings,
    transform_non_params=lambda shape: place(shape, replicated(mesh)),
  )
  return {
    'params': jax.tree.map(place, params, shardings),
    'optimizer': optimizer_state,
    'step': jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(mesh)),
  }


def init_state(
  config: ModelConfig,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  key: jax.Array,
  rules: ShardingConfig = _RULES,
) -> State:
  """A fresh train state; every array is made on the devices that keep it."""

  def init(key):
    _, params = split(make_model(config, key=key))
    return {'params': params, 'optimizer': optimizer.init(params), 'step': jnp.zeros((), jnp.int32)}

  shardings = jax.tree.map(lambda x: x.sharding, abstract_state(config, optimizer, mesh, rules))
  return jax.jit(init, out_shardings=shardings)(key)
