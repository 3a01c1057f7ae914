"""How parameters are made: initial values of the paper's code, and the logical names of their axes.

A parameter's `axes` name its dimensions for sharding; layers of a stack add a leading axis `layers`.
"""

import math
from collections.abc import Sequence

import jax
from flax import nnx


def parameter(value: jax.Array, axes: Sequence[str | None]) -> nnx.Param:
  """A trainable array with a logical name for each of its dimensions."""
  if value.ndim != len(axes):
    raise ValueError(f'axes: expected one name for each of {value.ndim} dimensions, found {axes}')
  return nnx.Param(value, axes=tuple(axes))


def glorot_uniform(key: jax.Array, shape: Sequence[int], fan_in: int, fan_out: int) -> jax.Array:
  """Uniform in +-sqrt(6 / (fan_in + fan_out)), with the fans of the matrix that the array stands for."""
  bound = math.sqrt(6 / (fan_in + fan_out))
  return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def glorot_normal(key: jax.Array, shape: Sequence[int], fan_in: int, fan_out: int) -> jax.Array:
  """Normal with variance 2 / (fan_in + fan_out)."""
  return jax.random.normal(key, shape) * math.sqrt(2 / (fan_in + fan_out))


def small_normal(key: jax.Array, shape: Sequence[int]) -> jax.Array:
  """Normal with standard deviation 1e-6, for biases."""
  return jax.random.normal(key, shape) * 1e-6


def logical_axes(tree) -> dict[tuple[str, ...], tuple[str | None, ...]]:
  """Path of each parameter of a module -> names of its axes, `layers` first where it is stacked."""
  _, state = nnx.split(tree)
  named = {}
  for path, variable in nnx.to_flat_state(state):
    axes = variable.get_metadata()['axes']
    stacked = len(variable.get_value().shape) - len(axes)
    named[tuple(str(part) for part in path)] = ('layers',) * stacked + axes
  return named
