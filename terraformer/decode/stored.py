"""The layouts in which a bundle stores parameters.

A layout says how the file stores one parameter: as an array, as rows of 8-bit numbers with scales, or as a matrix in
the panels that the native kernels read (`native.layout`). A module then holds a plain array, or an object of a class
below. Indexing such an object with `[...]` gives the float32 array, inside compiled programs as well.

K inputs, N outputs.
"""

import dataclasses
import math
from typing import Any, ClassVar, Protocol

import jax
import ml_dtypes
import numpy as np

from terraformer.native import layout

Array = np.ndarray | jax.Array
_NUMPY = {'float32': np.dtype(np.float32), 'bfloat16': np.dtype(ml_dtypes.bfloat16), 'int8': np.dtype(np.int8)}


class Layout(Protocol):
  """How a file stores a parameter."""

  kind: ClassVar[str]

  def parts(self, name: str, shape: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of the tensors that store the parameter `name`, by their names in the file."""
    ...

  def encode(self, name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """Returns these tensors for a float32 parameter."""
    ...

  def value(self, name: str, shape: tuple[int, ...], tensors: dict[str, np.ndarray]) -> Any:
    """Returns the parameter's value from these tensors, without a copy."""
    ...


class _Float32:
  """What every stored form of a float32 array has in common with the array."""

  shape: tuple[int, ...]

  @property
  def size(self) -> int:
    return math.prod(self.shape)

  @property
  def dtype(self) -> np.dtype:
    """Type of the array that it represents."""
    return np.dtype(np.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StoredArray(_Float32):
  """An array stored in fewer bits.

  Attributes:
    numbers: bfloat16 or int8.
    scale: float32, one per row of int8 numbers; None for bfloat16.
  """

  numbers: Array
  scale: Array | None

  @property
  def shape(self) -> tuple[int, ...]:
    return self.numbers.shape

  def __getitem__(self, index: Any) -> Array:
    array = self.numbers.astype(np.float32)
    return (array if self.scale is None else array * self.scale[..., None])[index]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedMatrix(_Float32):
  """A matrix in panels.

  Attributes:
    packed: uint8, the result of `native.layout.pack`.
    layout: the layout of the panels.
    shape: shape of the parameter.
  """

  packed: Array
  layout: 'PanelsLayout' = dataclasses.field(metadata={'static': True})
  shape: tuple[int, ...] = dataclasses.field(metadata={'static': True})

  def __getitem__(self, index: Any) -> Array:
    weights_KxN = layout.unpack(self.packed, self.layout.matrix(self.shape))
    return self.layout.view.to_parameter(weights_KxN, self.shape)[index]


def plain(value: Any) -> np.ndarray:
  """Returns a value as an array; a plain array is not copied, and keeps its type."""
  return np.asarray(value[...])


@dataclasses.dataclass(frozen=True)
class MatrixView:
  """How a parameter is seen as a matrix KxN.

  Attributes:
    axes: axes of the parameter, inputs before outputs.
    n_input_axes: number of input axes.
    in_blocks: whether the last output axis is padded with zeros to whole panels.
  """

  axes: tuple[int, ...]
  n_input_axes: int
  in_blocks: bool = False

  def matrix_shape(self, shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns K and N."""
    inputs, outputs = self._in_order(shape)
    return math.prod(inputs), math.prod(outputs)

  def to_matrix(self, array: np.ndarray) -> np.ndarray:
    """Returns the matrix of a parameter."""
    inputs, outputs = self._in_order(array.shape)
    array = array.transpose(self.axes)
    if missing := outputs[-1] - array.shape[-1]:
      array = np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)])
    return array.reshape(math.prod(inputs), math.prod(outputs))

  def to_parameter(self, weights_KxN: Array, shape: tuple[int, ...]) -> Array:
    """Returns the parameter of a matrix."""
    inputs, outputs = self._in_order(shape)
    array = weights_KxN.reshape(*inputs, *outputs)[..., : shape[self.axes[-1]]]
    return array.transpose(tuple(np.argsort(self.axes)))

  def _in_order(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    ordered = tuple(shape[axis] for axis in self.axes)
    inputs, outputs = ordered[: self.n_input_axes], ordered[self.n_input_axes :]
    if self.in_blocks:
      outputs = (*outputs[:-1], -(-outputs[-1] // layout.PANEL) * layout.PANEL)
    return inputs, outputs


@dataclasses.dataclass(frozen=True)
class ArrayLayout:
  """An array of the parameter's shape.

  Attributes:
    dtype: float32 or bfloat16.
    by_row: whether programs read single rows, in this type; otherwise they read the whole array as float32.
  """

  kind: ClassVar[str] = 'array'
  dtype: str = 'float32'
  by_row: bool = True

  def parts(self, name: str, shape: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(shape, _NUMPY[self.dtype])}

  def encode(self, name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array.astype(_NUMPY[self.dtype], copy=False)}

  def value(self, name: str, shape: tuple[int, ...], tensors: dict[str, np.ndarray]) -> Any:
    return tensors[name] if self.by_row or self.dtype == 'float32' else StoredArray(tensors[name], None)


@dataclasses.dataclass(frozen=True)
class RowsLayout:
  """8-bit numbers of the parameter's shape, with one scale per row (along the last axis)."""

  kind: ClassVar[str] = 'rows'

  def parts(self, name: str, shape: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    numbers = jax.ShapeDtypeStruct(shape, np.int8)
    return {name: numbers, f'{name}.scales': jax.ShapeDtypeStruct(shape[:-1], np.float32)}

  def encode(self, name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    rows, scale = layout.pack_rows(array.reshape(-1, array.shape[-1]), 'int8')
    return {name: rows.reshape(array.shape), f'{name}.scales': scale.reshape(array.shape[:-1])}

  def value(self, name: str, shape: tuple[int, ...], tensors: dict[str, np.ndarray]) -> Any:
    return StoredArray(tensors[name], tensors[f'{name}.scales'])


@dataclasses.dataclass(frozen=True)
class PanelsLayout:
  """A matrix in panels, see `native.layout`.

  Attributes:
    dtype: one of `native.layout.TYPES`.
    view: how the parameter is seen as a matrix.
    stretch: number of inputs whose products are summed separately and which, in 8 bits, share a scale.
  """

  kind: ClassVar[str] = 'panels'
  dtype: str
  view: MatrixView
  stretch: int

  def matrix(self, shape: tuple[int, ...]) -> layout.Matrix:
    """Returns the packed matrix for a parameter of this shape."""
    return layout.Matrix(self.dtype, *self.view.matrix_shape(shape), self.stretch)

  def parts(self, name: str, shape: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct((self.matrix(shape).n_bytes,), np.uint8)}

  def encode(self, name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    return {name: layout.pack(self.view.to_matrix(array), self.matrix(array.shape))}

  def value(self, name: str, shape: tuple[int, ...], tensors: dict[str, np.ndarray]) -> Any:
    return PackedMatrix(tensors[name], self, shape)


def to_json(layout_: Layout) -> dict[str, Any]:
  """Returns a layout as JSON values."""
  return {'kind': layout_.kind} | dataclasses.asdict(layout_)


def from_json(values: Any, shape: tuple[int, ...]) -> Layout:
  """Returns the layout that `to_json` wrote for a parameter of this shape.

  Raises:
    ValueError: if the values are not a layout, or do not fit the shape.
  """
  if not isinstance(values, dict):
    raise ValueError
  values = dict(values)
  kind = values.pop('kind', None)
  try:
    if kind == RowsLayout.kind:
      found = RowsLayout(**values)
      _require(len(shape) > 0)
    elif kind == ArrayLayout.kind:
      found = ArrayLayout(**values)
      _require(found.dtype in ('float32', 'bfloat16') and type(found.by_row) is bool)
    elif kind == PanelsLayout.kind:
      view = values.pop('view')
      found = PanelsLayout(view=MatrixView(**view | {'axes': tuple(view['axes'])}), **values)
      _require(found.dtype in layout.TYPES and type(found.stretch) is int and 0 < found.stretch < 2**31)
      _require(all(type(axis) is int for axis in found.view.axes) and type(found.view.in_blocks) is bool)
      _require(sorted(found.view.axes) == list(range(len(shape))))
      _require(type(found.view.n_input_axes) is int and 0 < found.view.n_input_axes < len(shape))
    else:
      _require(False)
  except (TypeError, KeyError) as error:
    raise ValueError from error
  return found


def _require(condition: bool) -> None:
  if not condition:
    raise ValueError
