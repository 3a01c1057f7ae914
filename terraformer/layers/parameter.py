"""How parameters are made: their initial values, as in the paper's code, and the facts that each carries.

Whoever makes a parameter tells what it knows of it; whoever owns the layer adds what the layer cannot know, such as the
stack that it is in. All others ask for these facts, and know no parameter by its name.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import jax
from flax import nnx

from terraformer.config import UserError


@dataclasses.dataclass(frozen=True)
class Facts:
  """What is known of a parameter.

  Attributes:
    axes: logical names of its dimensions, for sharding; `layers` comes first where layers are stacked.
    row_axis: the axis, counted from the end, of which a decoded token reads `rows` indices; None where it reads all. So
      it is the same for one layer and for layers that are stacked.
    rows: how many.
    decays: whether weight decay applies.
    stays_float32: whether a bundle never stores it in half the space; one that a token reads whole is never stored so.
    in_step: whether a decoding step reads it.
    group: its group in the table of costs: `QKV`, `output layer`.
    stack: the stack to which it belongs, as the model calls it; None where it is of several or of none.
    loop: what of its stack has an array of this parameter for each turn: `blocks`, or `forgets` between them; None
      outside of stacks.
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
    """Its group in the table of costs, `decoder QKV`."""
    return f'{self.stack} {self.group}' if self.stack else self.group

  @property
  def stacked_path(self) -> str | None:
    """Path of the module of which each turn has one, `decoder.blocks`."""
    return f'{self.stack}.{self.loop}' if self.loop else None


class ModelFacts(dict[str, Facts]):
  """Path of each parameter of a model -> its facts; to ask for any other path is an error."""

  def __missing__(self, path: str) -> Facts:
    raise UserError(f'{path}: the model has no such parameter, so nothing is known about it')


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
  """A trainable array with what its layer knows of it; the rest of the `Facts` is told by the layer's owners."""
  if value.ndim != len(axes):
    raise ValueError(f'axes: expected one name for each of {value.ndim} dimensions, found {axes}')
  return nnx.Param(value, facts=Facts(tuple(axes), row_axis, rows, decays, stays_float32, group=group))


def tell(
  module: nnx.Module | None,
  *,
  group: str | None = None,
  stack: str | None = None,
  loop: str | None = None,
  in_step: bool = True,
) -> None:
  """Adds what the owner of a module knows to all of its parameters; a group, stack or loop that one has stays."""
  for _, variable in named_parameters(module):
    facts = facts_in(variable)
    known = {'group': facts.group or group, 'stack': facts.stack or stack, 'loop': facts.loop or loop}
    variable.set_metadata('facts', dataclasses.replace(facts, **known, in_step=facts.in_step and in_step))


def facts_of(module: nnx.Module) -> ModelFacts:
  """The facts of all parameters of a module by path, `decoder.blocks.feed_forward.feed_forward.w1_MxNxD`.

  Raises:
    UserError: naming the first parameter that was not made by `parameter`, or that has no group.
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
  """The facts that a variable carries, with the axes of one layer."""
  facts = variable.get_metadata().get('facts') if isinstance(variable, nnx.Variable) else None
  if facts is None:
    raise UserError(f'{path}: nothing is known about it; make it by `layers.parameter.parameter`')
  return facts


def named_parameters(module: nnx.Module | None) -> Iterator[tuple[str, nnx.Variable]]:
  """Path and variable of each parameter of a module."""
  leaves = jax.tree_util.tree_leaves_with_path(module, is_leaf=lambda node: isinstance(node, nnx.Variable))
  for path, variable in leaves:
    yield jax.tree_util.keystr(path, simple=True, separator='.'), variable


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
