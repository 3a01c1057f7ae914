"""A module as its structure and a plain dict of arrays: the form that is trained, saved and exported."""

import re
from typing import Any

import jax
from flax import nnx

Params = dict[str, Any]
_STACKS = ('blocks', 'forgets')  # the names that `models.stack.Stack` gives to what it stacks


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Params]:
  """The module's structure, and its parameters as nested dicts with string keys; arrays may be abstract."""
  structure, state = nnx.split(module)
  return structure, _rename(nnx.to_pure_dict(state), str)


def merge(structure: nnx.GraphDef, params: Params) -> Any:
  """The module of `split`; cheap enough for the inside of a jitted function."""
  return nnx.merge(structure, _rename(params, lambda key: int(key) if key.isdigit() else key))


def flatten(params: Params) -> dict[str, Any]:
  """`path.to.parameter` -> array, in a fixed order."""
  leaves = jax.tree_util.tree_flatten_with_path(params)[0]
  return {'.'.join(entry.key for entry in path): leaf for path, leaf in leaves}


def unflatten(flat: dict[str, Any]) -> Params:
  """The nested dict that `flatten` took apart."""
  params: Params = {}
  for path, leaf in flat.items():
    *parents, name = path.split('.')
    node = params
    for parent in parents:
      node = node.setdefault(parent, {})
    node[name] = leaf
  return params


def stacked_name(name: str) -> tuple[str, int | None]:
  """Where a parameter of an unrolled model lies in the stacked one: its name, and its layer or None."""
  match = re.fullmatch(rf'(\w+\.(?:{"|".join(_STACKS)}))\.(\d+)\.(.*)', name)
  return (f'{match[1]}.{match[3]}', int(match[2])) if match else (name, None)


def take_stacks(params: Params) -> tuple[dict[str, Params], Params]:
  """The stacks of layers, each array with a leading axis of layers, by name (`decoder.blocks`), and all the rest."""
  stacks, rest = {}, {}
  for name, array in flatten(params).items():
    part, kind, path = (*name.split('.', 2), '', '')[:3]
    if kind in _STACKS:
      stacks.setdefault(f'{part}.{kind}', {})[path] = array
    else:
      rest[name] = array
  return {name: unflatten(stack) for name, stack in stacks.items()}, unflatten(rest)


def put_stacks(stacks: dict[str, Params], rest: Params) -> Params:
  """The parameters that `take_stacks` took apart."""
  flat = {f'{name}.{path}': array for name, stack in stacks.items() for path, array in flatten(stack).items()}
  return unflatten(flatten(rest) | flat)


def describe(array) -> str:
  """Type and shape as messages give them, `float32[2, 3]`; `none` for None."""
  return 'none' if array is None else f'{array.dtype}{list(array.shape)}'


def count(params: Params) -> int:
  """Numbers in all arrays together."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def _rename(node, rename):
  return {rename(key): _rename(value, rename) for key, value in node.items()} if isinstance(node, dict) else node
