"""Which layout each parameter of a model has in a bundle."""

import math

from terraformer.config import ModelConfig
from terraformer.decode.native.description import Types
from terraformer.decode.native.model import describe
from terraformer.decode.shapes import abstract_layerwise, layerwise_facts
from terraformer.decode.stored import ArrayLayout, Layout, RowsLayout
from terraformer.layers.parameter import Facts
from terraformer.models.parameters import flatten, split_module

DTYPES = ('float32', 'bfloat16', 'int8')
# Parameters that XLA reads in every step, a row each.
_GROUPS_OF_XLA = ('embedding', 'positions')
_SMALL = 1 << 12  # numbers; in fewer bits an array of no more saves nothing


def layouts_for(config: ModelConfig, dtype: str) -> dict[str, Layout]:
  """The layout of every parameter of the layerwise model, by name.

  What the native kernels read lies as they read it; all else, of which a step reads single rows at most, as arrays.

  Args:
    config: of the model.
    dtype: of `DTYPES`; vectors are float32 in all of them, and tables that XLA reads are bfloat16 in int8 bundles.
  """
  model, facts = abstract_layerwise(config), layerwise_facts(config)
  by_kernels = describe(model, Types(dtype)).layouts
  shapes = {name: leaf.shape for name, leaf in flatten(split_module(model)[1]).items()}
  return {name: by_kernels.get(name) or _as_array(shape, facts[name], dtype) for name, shape in shapes.items()}


def layouts_before_panels(config: ModelConfig, bfloat16: bool) -> dict[str, Layout]:
  """The layouts of bundles of format 4: arrays, of which those that are read row by row may be bfloat16."""
  facts = layerwise_facts(config)
  small = ArrayLayout('bfloat16' if bfloat16 else 'float32')
  return {
    name: small if each.row_axis is not None and not each.stays_float32 else ArrayLayout()
    for name, each in facts.items()
  }


def _as_array(shape: tuple[int, ...], facts: Facts, dtype: str) -> Layout:
  if dtype == 'float32' or facts.stays_float32 or len(shape) < 2 or math.prod(shape) <= _SMALL:
    return ArrayLayout()
  if facts.in_step and facts.group in _GROUPS_OF_XLA:
    return ArrayLayout('bfloat16')
  if dtype == 'int8':
    return RowsLayout()
  return ArrayLayout('bfloat16', by_row=facts.row_axis is not None)
