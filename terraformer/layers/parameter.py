"""Makes parameters, with initial values as in the authors' code and with facts about each.

A layer gives the facts that it knows when it makes a parameter; the layer's owner adds the others, such as the stack
that it belongs to. All other code asks for these facts instead of recognizing parameters by name.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import jax
from flax import nnx

from terraformer.config import UserError


@dataclasses.dataclass(frozen=True)
class Facts:
  """The facts about a parameter.

  Attributes:
    axes: logical names of the dimensions, for sharding; `layers` comes first if layers are stacked.
    row_axis: the axis of which a decoded token reads only `rows` indices, or None if it reads the whole parameter. The
      axis is negative, so it is the same for one layer and for stacked layers.
    rows: number of indices that a decoded token reads.
    decays: whether weight decay applies.
    stays_float32: whether bundles always store the parameter in float32.
    in_step: whether a decoding step reads the parameter.
    group: group in the table of costs, such as `QKV` or `output layer`.
    stack: name of the parameter's stack in the model; None if it belongs to no stack or to several.
    loop: name of the parameter's stacked modules in the stack: `blocks`, or `forgets` between them. None outside of
      stacks.
  """

  axes: tuple[str | None, ...]
  row_axis: int | None = None
  rows: int = 1
  decays: bool = True
  stays_float32: bool = False
  in_step: bool = True
  group: str | None = None
  stack: str | None = None
  loop: str | None = None

  @property
  def label(self) -> str:
    """Stack and group, the parameter's label in the table of costs, such as `decoder QKV`."""
    return f'{self.stack} {self.group}' if self.stack else self.group

  @property
  def stacked_path(self) -> str | None:
    """Path of the stacked modules that the parameter belongs to, such as `decoder.blocks`; None outside of stacks."""
    return f'{self.stack}.{self.loop}' if self.loop else None


class ModelFacts(dict[str, Facts]):
  """The facts about each parameter of a model, by path. Any other path raises UserError."""

  def __missing__(self, path: str) -> Facts:
    raise UserError(f'{path}: the model has no such parameter')


def parameter(
  value: jax.Array,
  axes: Sequence[str | None],
  *,
  row_axis: int | None = None,
  rows: int = 1,
  decays: bool = True,
  stays_float32: bool = False,
  group: str | None = None,
) -> nnx.Param:
  """Returns a trainable array with the facts that its layer knows; see `Facts`. `add_facts` adds the others.

  Raises:
    ValueError: if `axes` does not name every dimension.
  """
  if value.ndim != len(axes):
    raise ValueError(f'axes: expected one name for each of {value.ndim} dimensions, found {axes}')
  return nnx.Param(value, facts=Facts(tuple(axes), row_axis, rows, decays, stays_float32, group=group))


def add_facts(
  module: nnx.Module | None,
  *,
  group: str | None = None,
  stack: str | None = None,
  loop: str | None = None,
  in_step: bool = True,
) -> None:
  """Adds facts to all parameters of a module. A group, stack or loop that a parameter already has is kept."""
  for _, variable in named_parameters(module):
    facts = facts_in(variable)
    known = {'group': facts.group or group, 'stack': facts.stack or stack, 'loop': facts.loop or loop}
    variable.set_metadata('facts', dataclasses.replace(facts, **known, in_step=facts.in_step and in_step))


def facts_of(module: nnx.Module) -> ModelFacts:
  """Returns the facts of all parameters of a module by path, `decoder.blocks.feed_forward.feed_forward.w1_MxNxD`.

  Raises:
    UserError: if a parameter was not made by `parameter` or has no group.
  """
  found = ModelFacts()
  for path, variable in named_parameters(module):
    facts = facts_in(variable, path)
    if facts.group is None:
      raise UserError(f'{path}: the parameter has no group; make its layer with make_feed_forward, or pass `group=`')
    stacked = len(variable.get_value().shape) - len(facts.axes)
    found[path] = dataclasses.replace(facts, axes=('layers',) * stacked + facts.axes)
  return found


def facts_in(variable: nnx.Variable, path: str = 'a parameter') -> Facts:
  """Returns the facts of a variable, with the axes of one layer.

  Raises:
    UserError: if it was not made by `parameter`.
  """
  facts = variable.get_metadata().get('facts') if isinstance(variable, nnx.Variable) else None
  if facts is None:
    raise UserError(f'{path}: the parameter carries no facts; make it with `layers.parameter.parameter`')
  return facts


def named_parameters(module: nnx.Module | None) -> Iterator[tuple[str, nnx.Variable]]:
  """Yields the path and the variable of each parameter of a module."""
  leaves = jax.tree_util.tree_leaves_with_path(module, is_leaf=lambda node: isinstance(node, nnx.Variable))
  for path, variable in leaves:
    yield jax.tree_util.keystr(path, simple=True, separator='.'), variable


def glorot_uniform(key: jax.Array, shape: Sequence[int], fan_in: int, fan_out: int) -> jax.Array:
  """Returns samples uniform in +-sqrt(6 / (fan_in + fan_out)), with the fans of the matrix that they represent."""
  bound = math.sqrt(6 / (fan_in + fan_out))
  return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def glorot_normal(key: jax.Array, shape: Sequence[int], fan_in: int, fan_out: int) -> jax.Array:
  """Returns normal samples with variance 2 / (fan_in + fan_out)."""
  return jax.random.normal(key, shape) * math.sqrt(2 / (fan_in + fan_out))


def small_normal(key: jax.Array, shape: Sequence[int]) -> jax.Array:
  """Returns normal samples with standard deviation 1e-6, for biases."""
  return jax.random.normal(key, shape) * 1e-6
