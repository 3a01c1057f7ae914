"""A model's step as it is being written down for the native library, and what all layers have in common there.

D inputs, S modules, W width of a module.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from terraformer.layers.dense import Dense
from terraformer.layers.multiplicative import MultiplicativeDense
from terraformer.layers.norm import LayerNorm, RMSNorm
from terraformer.native import layout
from terraformer.native.plan import Plan

# Buffers of the 16-bit numbers beside weights of 8 bits.
WHOLE_ROW = -1


class NoKernelError(Exception):
  """A layer that the library has no operations for, in words that follow `the native engine has no kernel for`."""


@dataclasses.dataclass(frozen=True)
class Types:
  """Of numbers, each of `layout.TYPES`.

  Attributes:
    weights: of matrices and picked rows.
    cache: of keys and values.
  """

  weights: str = 'float32'
  cache: str = 'float32'

  @property
  def small(self) -> str:
    """Of what is too small to matter, and would need activations in 16 bits of its own."""
    return 'float32' if self.weights == 'float32' else 'bfloat16'


@dataclasses.dataclass(frozen=True)
class Kept:
  """Something that a step finds in the cache, and where the library has it.

  Attributes:
    at: where, in a page or in the state.
    get: takes it from the model's own caches of all layers.
  """

  at: int
  get: Callable[[Any], Any]


class Description:
  """A plan that is being written, and what of the model's caches goes where.

  Attributes:
    plan: the plan.
    types: of weights and cache.
    keys: attention's `KVCache`s in the pages.
    memories: caches of cross-attention in the memory's pages.
    histories: what convolutions keep, BxCxD without the last position.
    states: of recurrences, BxU.
  """

  def __init__(self, plan: Plan, types: Types, d_model: int):
    self.plan, self.types = plan, types
    self.keys: list[Kept] = []
    self.memories: list[Kept] = []
    self.histories: list[Kept] = []
    self.states: list[Kept] = []
    self._buffers: dict[tuple, int] = {}
    self.d_model = d_model

  def buffer(self, name: str, width: int, rows: int = 1, segment: int = 0) -> int:
    """The buffer of a name and shape, which layers share; `segment` counts beside weights in 8 bits alone."""
    segment = 0 if self.types.weights != 'int8' else width if segment == WHOLE_ROW else min(segment, width)
    key = name, width, rows, segment
    if key not in self._buffers:
      self._buffers[key] = self.plan.buffer(width, rows, segment)
    return self._buffers[key]

  def matrix(self, path: str, get: Callable[[], Any], shape: tuple[int, int], stretch: int = 0, small: bool = False):
    """A matrix, in stretches of their usual length unless said otherwise."""
    kind = self.types.small if small else self.types.weights
    packed = layout.Matrix(kind, *shape, stretch or layout.stretch_of(shape[0]))
    return self.plan.matrix(path, packed, lambda: np.asarray(get(), np.float32))

  def rows(self, path: str, get: Callable[[], Any], shape: tuple[int, int]) -> int:
    """Rows that are read one by one, where they lie if they are of the type that is asked for."""
    stored = str(get().dtype)
    kind = stored if self.types.weights == 'float32' else self.types.weights
    return self.plan.rows(path, kind, shape, lambda: np.asarray(get()).reshape(shape))

  def vector(self, path: str, size: int, get: Callable[[], Any]) -> int:
    """Numbers in float32."""
    return self.plan.vector(path, size, lambda: np.asarray(get(), np.float32))


@dataclasses.dataclass(frozen=True)
class Streams:
  """The residual streams: buffers, the last of which a sublayer reads and the first of which it adds to."""

  buffers: tuple[int, ...]
  to_grid: bool

  def turned(self) -> 'Streams':
    """After a sublayer."""
    return dataclasses.replace(self, buffers=(*self.buffers[1:], self.buffers[0]))

  @property
  def end(self) -> dict[str, int]:
    """Columns of the operation that adds a sublayer's result to the streams."""
    return {'target': self.buffers[0], 'adds': 1, 'to_grid': int(self.to_grid)}


def normalise(to: Description, layer: LayerNorm | RMSNorm, path: str, sources: tuple[int, ...], target: int) -> None:
  """Of one stream, or of the mean of two."""
  if not isinstance(layer, LayerNorm | RMSNorm):
    raise NoKernelError(type(layer).__name__)
  d = to.d_model
  columns = {'scale': to.vector(f'{path}.scale', d, lambda: layer.scale_D[...])}
  if isinstance(layer, LayerNorm):
    columns['bias'] = to.vector(f'{path}.bias', d, lambda: layer.bias_D[...])
  second = sources[1] if len(sources) > 1 else -1
  root_mean_square = int(isinstance(layer, RMSNorm))
  to.plan.add('norm', source=sources[0], second=second, target=target, root_mean_square=root_mean_square, **columns)


def make_ready(to: Description, buffer: int) -> None:
  """Rounds what an operation has not rounded itself, where a matrix in 8 bits reads it."""
  if to.types.weights == 'int8':
    to.plan.add('quantise', target=buffer)


def dense(to: Description, layer: Dense, path: str, source: int, small: bool = False, **columns: int) -> None:
  """y = x kernel + bias, with what may follow a product."""
  shape = layer.kernel_DxF[...].shape
  matrix = to.matrix(f'{path}.kernel', lambda: layer.kernel_DxF[...], shape, small=small)
  if layer.bias_F is not None:
    columns['bias'] = to.vector(f'{path}.bias', shape[1], lambda: layer.bias_F[...])
  to.plan.add('dense', source=source, matrix=matrix, **columns)


def multiplicative(
  to: Description, path: str, source: int, gating: Any, projection: Callable[[], Any], bias: Any, **columns: int
) -> None:
  """y[s, w] = sum_d x[d] gating[s, d] projection[d, w] + bias[s, w]."""
  (n_modules, d_in), width = gating[...].shape, bias[...].shape[1]
  stretch = layout.stretch_of(d_in)
  gated = to.buffer('gated', d_in, n_modules, stretch)
  table = to.plan.rows(f'{path}.gating', to.types.small, (n_modules, d_in), lambda: np.asarray(gating[...], np.float32))
  matrix = to.matrix(f'{path}.projection', projection, (d_in, width))
  columns['bias'] = to.vector(f'{path}.bias', n_modules * width, lambda: bias[...])
  to.plan.add('gate', source=source, target=gated, table=table, step=stretch)
  to.plan.add('dense', source=gated, matrix=matrix, rows=n_modules, **columns)


def multiplicative_layer(to: Description, layer: MultiplicativeDense, path: str, source: int, **columns: int) -> None:
  multiplicative(to, path, source, layer.gating_SxD, lambda: layer.projection_DxW[...], layer.bias_SxW, **columns)
