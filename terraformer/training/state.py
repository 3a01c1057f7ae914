"""The train state: a plain dict of `params`, `optimizer` and `step`, created on its final devices."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from terraformer.config import ModelConfig, ShardingConfig
from terraformer.layers.parameter import ModelFacts
from terraformer.models.make import make_model
from terraformer.models.parameters import Params, split_module
from terraformer.training.by_layer import Optimizer, map_moments
from terraformer.training.sharding import parameter_sharding, replicated

State = dict[str, Any]
_RULES = ShardingConfig()


def parameter_shardings(params: Params, facts: ModelFacts, mesh: Mesh, rules: ShardingConfig) -> Params:
  """Returns the sharding of each parameter, as nested dicts."""

  def place(path, shape):
    axes = facts[jax.tree_util.keystr(path, simple=True, separator='.')].axes
    return parameter_sharding(mesh, rules, axes, shape.shape)

  return jax.tree_util.tree_map_with_path(place, params)


def abstract_state(
  params: Params, facts: ModelFacts, optimizer: Optimizer, mesh: Mesh, rules: ShardingConfig = _RULES
) -> State:
  """Returns the shapes, types and shardings of the train state, for restoring a checkpoint.

  Args:
    params: parameters of the model, or only their shapes.
    facts: facts about the same parameters.
    optimizer: the optimizer.
    mesh: the mesh for the state.
    rules: which parameter axes are split over which mesh axes.
  """
  shardings = parameter_shardings(params, facts, mesh, rules)

  def place(shape, sharding):
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

  optimizer_state = jax.eval_shape(optimizer.init, params)
  places = map_moments(
    lambda moment, shape, sharding: _Places(moment.shape, shape.shape, sharding),
    optimizer,
    optimizer_state,
    params,
    shardings,
    other=replicated(mesh),
  )
  optimizer_state = jax.tree_util.tree_map_with_path(
    lambda path, shape, where: place(shape, where.at(path) if isinstance(where, _Places) else where),
    optimizer_state,
    places,
  )
  return {
    'params': jax.tree.map(place, params, shardings),
    'optimizer': optimizer_state,
    'step': jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(mesh)),
  }


def step_options(abstract: State, mesh: Mesh) -> dict[str, Any]:
  """Returns `jax.jit` options for a training step: donate the old state, and keep its sharding for the new one."""
  places = jax.tree.map(lambda x: x.sharding, abstract)
  return {'donate_argnums': 0, 'out_shardings': (places, replicated(mesh), replicated(mesh))}


class _Places:
  """The shardings that a moment may have: that of its parameter, minus the averaged dimension if it is factored.

  If factored moments were replicated, they would be gathered in every step.
  """

  def __init__(self, shape: tuple[int, ...], parameter: tuple[int, ...], sharding: NamedSharding):
    spec = (*sharding.spec, *[None] * (len(parameter) - len(sharding.spec)))
    means = [n for n in range(len(parameter)) if parameter[:n] + parameter[n + 1 :] == shape]
    without = [NamedSharding(sharding.mesh, P(*spec[:n], *spec[n + 1 :])) for n in means]
    self._options = [sharding] if shape == parameter else without or [replicated(sharding.mesh)]

  def at(self, path: tuple) -> NamedSharding:
    """Returns the sharding of the moment at this path. For a square matrix the path decides: optax's row moments are
    means over the last dimension, its column moments over the first."""
    return self._options[-1 if any(getattr(key, 'name', None) == 'v_row' for key in path) else 0]


def init_state(config: ModelConfig, optimizer: Optimizer, abstract: State, key: jax.Array) -> State:
  """Returns a fresh train state; every array is created on its own devices, as `abstract` specifies."""

  def init(key):
    _, params = split_module(make_model(config, key=key))
    return {'params': params, 'optimizer': optimizer.init(params), 'step': jnp.zeros((), jnp.int32)}

  return jax.jit(init, out_shardings=jax.tree.map(lambda x: x.sharding, abstract))(key)
