"""An optimizer that treats each layer of a stack separately, as if its parameters were separate arrays.

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
    stacks: state of each stack of layers, by name (`decoder.blocks`); every array has a leading axis L.
    rest: state of the parameters outside stacks.
  """

  stacks: dict[str, Any]
  rest: Any


@dataclasses.dataclass(frozen=True)
class ByLayer:
  """Has the interface of `optax.GradientTransformation`.

  Attributes:
    inner: transforms the parameters of one layer, or those outside stacks; it must treat every array independently.
    stacks: paths of the stacks of layers, as `models.parameters.stacks_of` returns them.
  """

  inner: optax.GradientTransformation
  stacks: tuple[str, ...]

  def init(self, params: Params) -> ByLayerState:
    """Returns the initial state."""
    stacks, rest = partition_stacks(params, self.stacks)
    return ByLayerState(
      {name: jax.vmap(self.inner.init)(stack) for name, stack in stacks.items()}, self.inner.init(rest)
    )

  def update(self, gradients: Params, state: ByLayerState, params: Params) -> tuple[Params, ByLayerState]:
    """Returns the updates to add to the parameters, and the next state."""
    (d_stacks, d_rest), (stacks, rest) = (partition_stacks(tree, self.stacks) for tree in (gradients, params))
    update = jax.vmap(self.inner.update)
    found = {name: update(d_stacks[name], state.stacks[name], stack) for name, stack in stacks.items()}
    rest_updates, rest_state = self.inner.update(d_rest, state.rest, rest)
    updates, states = ({name: both[index] for name, both in found.items()} for index in range(2))
    return combine_stacks(updates, rest_updates), ByLayerState(states, rest_state)


Optimizer = optax.GradientTransformation | ByLayer


def map_moments(function: Callable, optimizer: Optimizer, state: Any, *trees: Params, other: Any) -> Any:
  """Returns the optimizer's state with each array replaced.

  Args:
    function: called with a moment and, from each of `trees`, the value for the moment's parameter.
    optimizer: the optimizer.
    state: its state, as arrays or shapes.
    trees: trees with the structure of the parameters.
    other: replaces arrays that belong to no parameter, such as counters.
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
