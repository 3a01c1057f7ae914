"""Describes a model's step to the native library: the plan in progress, and operations that many layers share.

D inputs, F outputs, S modules, W width of a module.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx

from terraformer.decode.stored import (
  ArrayLayout,
  Layout,
  MatrixView,
  PackedMatrix,
  PanelsLayout,
  RowsLayout,
  StoredArray,
  plain,
)
from terraformer.layers.dense import Dense
from terraformer.layers.multiplicative import MultiplicativeDense
from terraformer.layers.norm import LayerNorm, RMSNorm
from terraformer.layers.parameter import named_parameters
from terraformer.models.base import Model
from terraformer.native import layout
from terraformer.native.plan import Plan

# This segment gives the 16-bit form of a buffer one scale per row.
WHOLE_ROW = -1
INPUTS_BY_OUTPUTS = MatrixView((0, 1), 1)


class NoKernelError(Exception):
  """The library has no kernels for a layer; the message is the layer's name."""


class ByExactType:
  """A function chosen by the type of its first argument, which must equal a registered type.

  Unlike with `functools.singledispatch`, a subclass is not treated as its base: it may compute something else, for
  which there is no kernel.

  Attributes:
    registered: the functions by type.
  """

  def __init__(self, default: Callable):
    self._default = default
    self.registered: dict[type, Callable] = {}
    functools.update_wrapper(self, default)

  def register(self, kind: type) -> Callable[[Callable], Callable]:
    """Returns a decorator that registers a function for a type."""

    def add(function: Callable) -> Callable:
      self.registered[kind] = function
      return function

    return add

  def __call__(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
    return self.registered.get(type(layer), self._default)(layer, *args, **kwargs)


@dataclasses.dataclass(frozen=True)
class Types:
  """Number types, each one of `layout.TYPES`.

  Attributes:
    weights: type of matrices, and of rows that are read one by one.
    cache: type of keys and values.
  """

  weights: str = 'float32'
  cache: str = 'float32'

  @property
  def small(self) -> str:
    """Type of matrices so small that int8 would save little, and would need extra 16-bit activations."""
    return 'float32' if self.weights == 'float32' else 'bfloat16'


@dataclasses.dataclass(frozen=True)
class Kept:
  """A piece of a model's caches, and its location in the library's cache.

  Attributes:
    at: offset in a page or in the state.
    get: returns the piece from the model's own caches of all layers.
  """

  at: int
  get: Callable[[Any], Any]


class Description:
  """A plan in progress, the layouts of its parameters, and the locations of the model's caches.

  Attributes:
    plan: the plan.
    types: number types of weights and cache.
    d_model: width of the model's vectors.
    capacity: capacity of the caches, on which it depends whether and how LSH attention hashes.
    layouts: layouts of the parameters that the plan reads, by name; a parameter stored in its layout is not copied.
    missing: layers that the library has no kernels for; the plan can only run if there are none.
    keys: the `KVCache`s of attention, in the pages.
    records: the `KVCache`s of hashed attention, in the pages as records of positions.
    tables: the recent positions of hashed attention.
    memories: the caches of cross-attention, in the memory's pages.
    histories: earlier positions that convolutions read, BxCxD without the current one.
    states: states of recurrences, BxU.
  """

  def __init__(self, plan: Plan, types: Types, model: Model, capacity: int):
    self.plan, self.types, self.d_model, self.capacity = plan, types, model.config.d_model, capacity
    self.layouts: dict[str, Layout] = {}
    self.missing: list[str] = []
    self.keys: list[Kept] = []
    self.records: list[Kept] = []
    self.tables: list[Kept] = []
    self.memories: list[Kept] = []
    self.histories: list[Kept] = []
    self.states: list[Kept] = []
    self._buffers: dict[tuple, int] = {}
    self._constants: dict[str, int] = {}
    self._names = {id(variable): name for name, variable in named_parameters(model)}

  def buffer(self, name: str, width: int, rows: int = 1, segment: int = 0) -> int:
    """Returns the buffer of this name and shape, which layers share; `segment` matters only with 8-bit weights."""
    segment = 0 if self.types.weights != 'int8' else width if segment == WHOLE_ROW else min(segment, width)
    key = name, width, rows, segment
    if key not in self._buffers:
      self._buffers[key] = self.plan.buffer(width, rows, segment)
    return self._buffers[key]

  def matrix(self, parameter: nnx.Variable, view: MatrixView, stretch: int = 0, small: bool = False) -> int:
    """Adds a parameter as a matrix, and returns its number; by default, stretches have the usual length."""
    name, shape = self._names[id(parameter)], parameter.get_value().shape
    kind = self.types.small if small else self.types.weights
    wanted = PanelsLayout(kind, view, stretch or layout.stretch_of(view.matrix_shape(shape)[0]))
    self.layouts[name] = wanted

    def packed() -> np.ndarray:
      value = parameter.get_value()
      if isinstance(value, PackedMatrix) and value.layout == wanted:
        return np.asarray(value.packed)
      return wanted.encode(name, plain(value).astype(np.float32, copy=False))[name]

    return self.plan.matrix(name, wanted.matrix(shape), packed)

  def rows(self, parameter: nnx.Variable, small: bool = False) -> int:
    """Adds a table of the parameter's rows (its last axis), and returns its number; rows of the right type are not
    copied."""
    name, value = self._names[id(parameter)], parameter.get_value()
    shape = math.prod(value.shape[:-1]), value.shape[-1]
    kind = self.types.small if small else self.types.weights
    if kind == 'float32' and not isinstance(value, StoredArray):
      kind = str(value.dtype)  # some bundles store only rows in half the space
    wanted = RowsLayout() if kind == 'int8' else ArrayLayout(kind, by_row=not small)
    self.layouts[name] = wanted

    @functools.cache
    def encoded() -> dict[str, np.ndarray]:
      return wanted.encode(name, plain(parameter.get_value()))

    def numbers() -> np.ndarray:
      value = parameter.get_value()
      stored = value.numbers if isinstance(value, StoredArray) else value
      return (stored if str(stored.dtype) == kind else encoded()[name]).reshape(shape)

    def scales() -> np.ndarray:
      value = parameter.get_value()
      return value.scale if isinstance(value, StoredArray) else encoded()[f'{name}.scales']

    return self.plan.rows(name, kind, shape, numbers, scales)

  def vector(
    self, parameter: nnx.Variable, change: Callable[[np.ndarray], np.ndarray] | None = None, size: int = 0
  ) -> int:
    """Adds a parameter as a flat float32 vector, and returns its number; `change` transforms it to `size` numbers."""

    def numbers() -> np.ndarray:
      array = plain(parameter.get_value()).astype(np.float32, copy=False)
      return change(array) if change else array

    return self.plan.vector(self._names[id(parameter)], size or math.prod(parameter.get_value().shape), numbers)

  def constant(self, name: str, size: int, numbers: Callable[[], np.ndarray]) -> int:
    """Adds `size` numbers that are no parameter, as a vector that layers share; returns its number."""
    if name not in self._constants:
      self._constants[name] = self.plan.vector(name, size, numbers)
    return self._constants[name]


@dataclasses.dataclass(frozen=True)
class Streams:
  """The buffers of the residual streams. A sublayer reads the last one and adds to the first one."""

  buffers: tuple[int, ...]
  to_grid: bool

  def turned(self) -> 'Streams':
    """Returns the streams for the next sublayer."""
    return dataclasses.replace(self, buffers=(*self.buffers[1:], self.buffers[0]))

  @property
  def end(self) -> dict[str, int]:
    """Columns of an operation that adds a sublayer's result to the streams."""
    return {'target': self.buffers[0], 'adds': 1, 'to_grid': int(self.to_grid)}


def normalize(to: Description, layer: LayerNorm | RMSNorm, sources: tuple[int, ...], target: int) -> None:
  """Adds the normalization of one stream, or of the mean of two."""
  if type(layer) not in (LayerNorm, RMSNorm):
    raise NoKernelError(type(layer).__name__)
  columns = {'scale': to.vector(layer.scale_D)}
  if isinstance(layer, LayerNorm):
    columns['bias'] = to.vector(layer.bias_D)
  second = sources[1] if len(sources) > 1 else -1
  root_mean_square = int(isinstance(layer, RMSNorm))
  to.plan.add('norm', source=sources[0], second=second, target=target, root_mean_square=root_mean_square, **columns)


def make_ready(to: Description, buffer: int) -> None:
  """Rounds a buffer to 16 bits for 8-bit matrices; needed if the operation that wrote the buffer has not done so."""
  if to.types.weights == 'int8':
    to.plan.add('quantize', target=buffer)


def dense(to: Description, layer: Dense, source: int, small: bool = False, **columns: int) -> None:
  """Adds y = x kernel + bias; `columns` set further options of the product."""
  matrix = to.matrix(layer.kernel_DxF, INPUTS_BY_OUTPUTS, small=small)
  if layer.bias_F is not None:
    columns['bias'] = to.vector(layer.bias_F)
  to.plan.add('dense', source=source, matrix=matrix, **columns)


def multiplicative(
  to: Description,
  source: int,
  gating_SxD: nnx.Variable,
  projection: nnx.Variable,
  bias_SxW: nnx.Variable,
  view: MatrixView,
  **columns: int,
) -> None:
  """Adds y[s, w] = sum_d x[d] gating[s, d] projection[d, w] + bias[s, w]; `view` gives the projection as DxW."""
  n_modules, d_in = gating_SxD.get_value().shape
  stretch = layout.stretch_of(d_in)
  gated = to.buffer('gated', d_in, n_modules, stretch)
  table = to.rows(gating_SxD, small=True)
  columns |= {'matrix': to.matrix(projection, view), 'bias': to.vector(bias_SxW)}
  to.plan.add('gate', source=source, target=gated, table=table, step=stretch)
  to.plan.add('dense', source=gated, rows=n_modules, **columns)


def multiplicative_layer(to: Description, layer: MultiplicativeDense, source: int, **columns: int) -> None:
  """Adds the layer, applied to the vectors of a buffer."""
  parameters = layer.gating_SxD, layer.projection_DxW, layer.bias_SxW
  multiplicative(to, source, *parameters, INPUTS_BY_OUTPUTS, **columns)
