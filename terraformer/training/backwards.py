"""Runs the optimizer inside the backward pass: each layer of a reversible stack is updated as soon as its gradient is
known, so the gradient of a whole stack never exists in memory.

L layers.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from terraformer.layers.parameter import facts_of
from terraformer.models.base import Model
from terraformer.models.parameters import Params, combine_stacks, merge_module, partition_stacks, split_module
from terraformer.models.stack import Stack
from terraformer.models.sublayers import SequenceMasks
from terraformer.ops.reversible import LayerUpdate, Streams, updating_stack
from terraformer.training.by_layer import ByLayer, ByLayerState, Optimizer
from terraformer.training.diagnostics import gradient_squares


class _UpdatingStack(nnx.Module):
  """A stack whose backward pass returns its updated layers and the updated moments instead of gradients."""

  def __init__(self, stack: Stack, update: LayerUpdate):
    self.stack, self.update = stack, nnx.data(update)
    self.residual = stack.residual

  def __call__(
    self, streams: Streams, masks: SequenceMasks, memory_BxSxD: jax.Array | None = None, *, key=None
  ) -> Streams:
    return updating_stack(self.stack.spec, self.stack.inputs(masks, memory_BxSxD, key), streams, self.update)


def can_update_backwards(model: Model, optimizer: Optimizer) -> bool:
  """Whether updates need the gradient of only one layer, and every stack computes its own backward pass."""
  stacks = [part for part in vars(model).values() if isinstance(part, Stack)]
  return isinstance(optimizer, ByLayer) and all(stack.can_update for stack in stacks)


def update_backwards(
  structure: nnx.GraphDef,
  optimizer: ByLayer,
  params: Params,
  state: ByLayerState,
  loss_of: Callable[[Model], tuple[jax.Array, Any]],
) -> tuple[Params, ByLayerState, Any, dict[str, jax.Array]]:
  """Takes one step, equal to `optimizer.update` with the whole gradient.

  Args:
    structure: the graph of a model for which `can_update_backwards` is true.
    optimizer: the optimizer.
    params: the parameters of the model.
    state: the optimizer's state before the step.
    loss_of: returns the loss of a model and auxiliary values.

  Returns:
    New parameters, new state, the auxiliary values of `loss_of`, and `diagnostics.gradient_squares`.
  """
  stacks, rest = partition_stacks(params, optimizer.stacks)
  counters = {name: _counters(of_stack) for name, of_stack in state.stacks.items()}
  squares_L = {name: jnp.zeros(len(jax.tree.leaves(stack)[0])) for name, stack in stacks.items()}

  def loss_of_params(rest: Params, stacks: dict[str, Params], moments: dict[str, Any]):
    model = merge_module(structure, combine_stacks(stacks, rest))
    for name in stacks:
      part = name.split('.')[0]
      update = LayerUpdate(_layer_update(optimizer.inner), moments[name], counters[name])
      setattr(model, part, _UpdatingStack(getattr(model, part), update))
    return loss_of(model)

  moments = {name: (_moments(of_stack), squares_L[name]) for name, of_stack in state.stacks.items()}
  step = jax.grad(loss_of_params, argnums=(0, 1, 2), has_aux=True)
  (d_rest, stacks, moments), aux = step(rest, stacks, moments)  # for stacks: new values, not gradients
  updates, rest_state = optimizer.inner.update(d_rest, state.rest, rest)
  # Counters advance whatever the gradient is; only they are computed from this update.
  _, counted = optimizer.update(params, state, params)
  new_state = ByLayerState(
    {name: _joined(moments, _counters(counted.stacks[name])) for name, (moments, _) in moments.items()}, rest_state
  )
  squares = {name.split('.')[0]: squares_L for name, (_, squares_L) in moments.items()}
  new_params = combine_stacks(stacks, optax.apply_updates(rest, updates))
  return new_params, new_state, aux, gradient_squares(d_rest, facts_of(merge_module(structure, params))) | squares


def _layer_update(inner: optax.GradientTransformation):
  """Returns the function of a `LayerUpdate`, which also stores the squared norm of each layer's gradient."""

  def update(block, moments, counters, d_block):
    (structure, params), (_, gradient) = split_module(block), split_module(d_block)
    moments, _ = moments
    updates, state = inner.update(gradient, _joined(moments, counters), params)
    square = optax.tree.norm(gradient, squared=True)
    return merge_module(structure, optax.apply_updates(params, updates)), (_moments(state), square)

  return update


def _is_moment(x: jax.Array) -> bool:
  return jnp.issubdtype(x.dtype, jnp.floating)


def _moments(state):
  """Returns the state without its counters, which are integers and cannot replace a gradient."""
  return jax.tree.map(lambda x: x if _is_moment(x) else None, state)


def _counters(state):
  return jax.tree.map(lambda x: None if _is_moment(x) else x, state)


def _joined(moments, counters):
  return jax.tree.map(lambda x, other: other if x is None else x, moments, counters, is_leaf=lambda x: x is None)
