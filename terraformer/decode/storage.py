"""Chooses the layout of each parameter in a bundle."""

import math

from terraformer.config import ModelConfig
from terraformer.decode.native.description import Types
from terraformer.decode.native.model import describe
from terraformer.decode.shapes import abstract_layerwise, layerwise_facts, read_by_xla
from terraformer.decode.stored import ArrayLayout, Layout, RowsLayout
from terraformer.layers.parameter import Facts
from terraformer.models.parameters import flatten, split_module

DTYPES = ('float32', 'bfloat16', 'int8')
_SMALL = 1 << 12  # numbers; storing a smaller array in fewer bits saves nothing


def layouts_for(config: ModelConfig, dtype: str) -> dict[str, Layout]:
  """Returns the layout of every parameter of the layerwise model, by name.

  Parameters of the native kernels are stored in the layout that the kernels read. All others are stored as arrays; a
  step reads at most single rows of them.

  Args:
    config: the model's configuration.
    dtype: one of `DTYPES`; vectors are always float32, and tables that XLA reads are bfloat16 in int8 bundles.
  """
  model, facts = abstract_layerwise(config), layerwise_facts(config)
  by_kernels = describe(model, Types(dtype)).layouts
  shapes = {name: leaf.shape for name, leaf in flatten(split_module(model)[1]).items()}
  return {name: by_kernels.get(name) or _as_array(shape, facts[name], dtype) for name, shape in shapes.items()}


def layouts_before_panels(config: ModelConfig, bfloat16: bool) -> dict[str, Layout]:
  """Returns the layouts of bundle format 4: arrays; those that are read row by row may be bfloat16."""
  facts = layerwise_facts(config)
  small = ArrayLayout('bfloat16' if bfloat16 else 'float32')
  return {
    name: small if each.row_axis is not None and not each.stays_float32 else ArrayLayout()
    for name, each in facts.items()
  }


def _as_array(shape: tuple[int, ...], facts: Facts, dtype: str) -> Layout:
  if dtype == 'float32' or facts.stays_float32 or len(shape) < 2 or math.prod(shape) <= _SMALL:
    return ArrayLayout()
  if read_by_xla(facts):
    return ArrayLayout('bfloat16')
  if dtype == 'int8':
    return RowsLayout()
  return ArrayLayout('bfloat16', by_row=facts.row_axis is not None)
