"""Splits a module into its structure and a plain dict of arrays, the form that is trained, saved and exported."""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx

from terraformer.layers.parameter import Facts, ModelFacts

Params = dict[str, Any]


def split_module(module: nnx.Module) -> tuple[nnx.GraphDef, Params]:
  """Returns a module's structure, and its parameters as nested dicts with string keys; arrays may be abstract."""
  structure, state = nnx.split(module)
  return structure, _rename(nnx.to_pure_dict(state), str)


def merge_module(structure: nnx.GraphDef, params: Params) -> Any:
  """Returns the module that `split_module` split; cheap enough to call inside a jitted function."""
  return nnx.merge(structure, _rename(params, lambda key: int(key) if key.isdigit() else key))


def flatten(params: Params) -> dict[str, Any]:
  """Returns a flat dict, `path.to.parameter` -> array, in a fixed order; the values need not be arrays."""
  leaves = jax.tree_util.tree_flatten_with_path(params, is_leaf=lambda node: not isinstance(node, dict))[0]
  return {'.'.join(entry.key for entry in path): leaf for path, leaf in leaves}


def unflatten(flat: dict[str, Any]) -> Params:
  """Returns the nested dict that `flatten` flattened."""
  params: Params = {}
  for path, leaf in flat.items():
    *parents, name = path.split('.')
    node = params
    for parent in parents:
      node = node.setdefault(parent, {})
    node[name] = leaf
  return params


def stacked_name(name: str, facts: Facts) -> tuple[str, int | None]:
  """Returns the name of a layerwise model's parameter in the stacked model, and its layer there or None."""
  if facts.stacked_path is None:
    return name, None
  layer, _, path = name[len(facts.stacked_path) + 1 :].partition('.')
  return f'{facts.stacked_path}.{path}', int(layer)


def layer_name(name: str, facts: Facts, layer: int) -> str:
  """Returns the name of one layer of a stacked parameter in the layerwise model; the inverse of `stacked_name`."""
  return f'{facts.stacked_path}.{layer}.{name[len(facts.stacked_path) + 1 :]}'


def stacks_of(facts: ModelFacts) -> tuple[str, ...]:
  """Returns the paths of modules whose arrays have a leading axis of layers, such as `decoder.blocks`."""
  return tuple(sorted({each.stacked_path for each in facts.values() if each.loop}))


def partition_stacks(params: Params, paths: Sequence[str]) -> tuple[dict[str, Params], Params]:
  """Returns the parameters of the stacks by path (see `stacks_of`), and all other parameters."""
  whole = {path: path.split('.') for path in paths}
  stacks = {path: functools.reduce(operator.getitem, keys, params) for path, keys in whole.items()}
  return stacks, _without(params, [*whole.values()])


def combine_stacks(stacks: dict[str, Params], rest: Params) -> Params:
  """Returns the parameters that `partition_stacks` partitioned."""
  flat = {f'{name}.{path}': array for name, stack in stacks.items() for path, array in flatten(stack).items()}
  return unflatten(flatten(rest) | flat)


def describe(array) -> str:
  """Returns type and shape for messages, such as `float32[2, 3]`; `none` for None."""
  return 'none' if array is None else f'{array.dtype}{list(array.shape)}'


def count(params: Params) -> int:
  """Returns the total size of all arrays."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def _without(params: Params, paths: Sequence[list[str]]) -> Params:
  """Returns the nested dict without the entries at these paths, and without dicts that are then empty."""
  kept: Params = {}
  for key, value in params.items():
    below = [path[1:] for path in paths if path[0] == key]
    if [] in below:
      continue
    value = _without(value, below) if below else value
    if not below or value:
      kept[key] = value
  return kept


def _rename(node, rename):
  return {rename(key): _rename(value, rename) for key, value in node.items()} if isinstance(node, dict) else node
