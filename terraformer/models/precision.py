"""Casts a layer's parameters to the type it computes in, and gathers them on every device."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.layers.parameter import facts_in
from terraformer.ops.constrain import gather

Module = TypeVar('Module')


def cast_and_gather(module: Module, dtype: jnp.dtype) -> Module:
  """Returns the module with its float32 arrays cast to `dtype`, then gathered if they are sharded (see `gather`).

  Called inside the loop over layers, it gathers one layer at a time, in the smaller type.
  """
  if dtype == jnp.float32 and jax.sharding.get_abstract_mesh().empty:
    return module
  structure, state = nnx.split(module)
  return nnx.merge(structure, jax.tree.map(lambda each: _cast_variable(each, dtype), state, is_leaf=_is_variable))


def _is_variable(node) -> bool:
  return isinstance(node, nnx.Variable)


def _cast_variable(variable: nnx.Variable, dtype: jnp.dtype) -> nnx.Variable:
  value = variable.get_value()
  if value.dtype == jnp.float32 and dtype != jnp.float32:
    # Without the barrier, the compiler casts the whole stack before the loop and keeps both copies.
    value = jax.lax.optimization_barrier(value).astype(dtype)
  return variable.replace(gather(value, facts_in(variable).axes))
