"""Parameters as a layer computes with them: in its type, and whole on every device that needs them."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.layers.parameter import facts_in
from terraformer.ops.constrain import gather

Module = TypeVar('Module')


def cast_and_gather(module: Module, dtype: jnp.dtype) -> Module:
  """The module with its float32 arrays converted to `dtype`, then gathered where they are divided by `fsdp`'s rules.

  Called inside the loop over layers, it gathers one layer at a time, and in the smaller type.
  """
  if dtype == jnp.float32 and jax.sharding.get_abstract_mesh().empty:
    return module
  structure, state = nnx.split(module)
  return nnx.merge(structure, jax.tree.map(lambda each: _ready(each, dtype), state, is_leaf=_is_variable))


def _is_variable(node) -> bool:
  return isinstance(node, nnx.Variable)


def _ready(variable: nnx.Variable, dtype: jnp.dtype) -> nnx.Variable:
  value = variable.get_value()
  if value.dtype == jnp.float32 and dtype != jnp.float32:
    # Without the barrier the compiler converts the whole stack before the loop, and keeps it twice.
    value = jax.lax.optimization_barrier(value).astype(dtype)
  return variable.replace(gather(value, facts_in(variable).axes))
