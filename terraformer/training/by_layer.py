"""An optimizer that takes each layer of a stack for itself, as if its parameters were arrays of their own.

L layers.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from terraformer.models.parameters import Params, combine_stacks, partition_stacks


class ByLayerState(NamedTuple):
  """State of `ByLayer`.

  Attributes:
    stacks: that of each stack of layers by name (`decoder.blocks`), every array with a leading axis L.
    rest: that of the parameters in no stack.
  """

  stacks: dict[str, Any]
  rest: Any


@dataclasses.dataclass(frozen=True)
class ByLayer:
  """Used as an `optax.GradientTransformation` is.

  Attributes:
    inner: gets the parameters of one layer, or those in no stack; it treats every array apart from all others.
    stacks: paths of the stacks of layers, as `models.parameters.stacks_of` has them.
  """

  inner: optax.GradientTransformation
  stacks: tuple[str, ...]

  def init(self, params: Params) -> ByLayerState:
    """The state at first."""
    stacks, rest = partition_stacks(params, self.stacks)
    return ByLayerState(
      {name: jax.vmap(self.inner.init)(stack) for name, stack in stacks.items()}, self.inner.init(rest)
    )

  def update(self, gradients: Params, state: ByLayerState, params: Params) -> tuple[Params, ByLayerState]:
    """What to add to the parameters, and the next state."""
    (d_stacks, d_rest), (stacks, rest) = (partition_stacks(tree, self.stacks) for tree in (gradients, params))
    update = jax.vmap(self.inner.update)
    found = {name: update(d_stacks[name], state.stacks[name], stack) for name, stack in stacks.items()}
    rest_updates, rest_state = self.inner.update(d_rest, state.rest, rest)
    updates, states = ({name: both[index] for name, both in found.items()} for index in range(2))
    return combine_stacks(updates, rest_updates), ByLayerState(states, rest_state)


Optimizer = optax.GradientTransformation | ByLayer


def map_moments(function: Callable, optimizer: Optimizer, state: Any, *trees: Params, other: Any) -> Any:
  """The optimizer's state with something else in the place of each array.

  Args:
    function: of a moment and, from each of `trees`, of what stands there for the parameter whose moment it is.
    optimizer: of which the state is.
    state: arrays or shapes.
    trees: of the structure of the parameters.
    other: what takes the place of an array that is no parameter's, as a counter.
  """
  if not isinstance(optimizer, ByLayer):
    return optax.tree_utils.tree_map_params(optimizer, function, state, *trees, transform_non_params=lambda _: other)
  apart = [partition_stacks(tree, optimizer.stacks) for tree in trees]
  stacks = {
    name: map_moments(function, optimizer.inner, stack, *(stacks[name] for stacks, _ in apart), other=other)
    for name, stack in state.stacks.items()
  }
  rest = map_moments(function, optimizer.inner, state.rest, *(rest for _, rest in apart), other=other)
  return ByLayerState(stacks, rest)
