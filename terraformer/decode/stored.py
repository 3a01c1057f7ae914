"""Tensors in the forms that a bundle stores them in.

A layout says how one parameter lies in the file: as an array, as rows of 8 bits with scales, or as a matrix in the
panels that the native kernels read (`native.layout`). The value of a parameter in a module is then a plain array, or
one of the classes here, whose `[...]` is the float32 array, inside compiled programs as well.

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
  """How a parameter lies in the file."""

  kind: ClassVar[str]

  def parts(self, name: str, shape: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    """The tensors of the file that hold the parameter `name`, by their names there."""
    ...

  def encode(self, name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """These tensors, from the float32 parameter."""
    ...

  def value(self, name: str, shape: tuple[int, ...], tensors: dict[str, np.ndarray]) -> Any:
    """The parameter's value, from these tensors; nothing is copied."""
    ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StoredArray:
  """An array in fewer bits.

  Attributes:
    numbers: bfloat16 or int8.
    scale: float32, one for each row of 8-bit numbers; None for bfloat16.
  """

  numbers: Array
  scale: Array | None

  @property
  def shape(self) -> tuple[int, ...]:
    return self.numbers.shape

  @property
  def size(self) -> int:
    return math.prod(self.shape)

  @property
  def dtype(self) -> np.dtype:
    """Of the array that it stands for."""
    return np.dtype(np.float32)

  def __getitem__(self, index: Any) -> Array:
    array = self.numbers.astype(np.float32)
    return (array if self.scale is None else array * self.scale[..., None])[index]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedMatrix:
  """A matrix in panels.

  Attributes:
    packed: uint8, as `native.layout.pack` makes it.
    layout: what it is.
    shape: of the parameter.
  """

  packed: Array
  layout: 'PanelsLayout' = dataclasses.field(metadata={'static': True})
  shape: tuple[int, ...] = dataclasses.field(metadata={'static': True})

  @property
  def size(self) -> int:
    return math.prod(self.shape)

  @property
  def dtype(self) -> np.dtype:
    """Of the array that it stands for."""
    return np.dtype(np.float32)

  def __getitem__(self, index: Any) -> Array:
    weights_KxN = layout.unpack(self.packed, self.layout.matrix(self.shape))
    return self.layout.view.to_parameter(weights_KxN, self.shape)[index]


def plain(value: Any) -> np.ndarray:
  """The array of a value; a plain one is not copied, and keeps its type."""
  return np.asarray(value[...])


@dataclasses.dataclass(frozen=True)
class MatrixView:
  """A parameter as a matrix KxN.

  Attributes:
    axes: of the parameter, the inputs' before the outputs'.
    n_input_axes: how many of them are inputs.
    in_blocks: whether each index of the outputs' axes but the last begins with a panel, behind zeros.
  """

  axes: tuple[int, ...]
  n_input_axes: int
  in_blocks: bool = False

  def matrix_shape(self, shape: tuple[int, ...]) -> tuple[int, int]:
    """K and N."""
    inputs, outputs = self._in_order(shape)
    return math.prod(inputs), math.prod(outputs)

  def to_matrix(self, array: np.ndarray) -> np.ndarray:
    """The matrix of a parameter."""
    inputs, outputs = self._in_order(array.shape)
    array = array.transpose(self.axes)
    if missing := outputs[-1] - array.shape[-1]:
      array = np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)])
    return array.reshape(math.prod(inputs), math.prod(outputs))

  def to_parameter(self, weights_KxN: Array, shape: tuple[int, ...]) -> Array:
    """The parameter of a matrix."""
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
    by_row: whether programs read single rows, in this type; else they read the whole array, as float32.
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
  """8-bit numbers of the parameter's shape, and a scale for each row of its last axis."""

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
  """A matrix in panels, `native.layout`.

  Attributes:
    dtype: of `native.layout.TYPES`.
    view: which matrix the parameter is.
    stretch: inputs that are added up apart and, in 8 bits, share a scale.
  """

  kind: ClassVar[str] = 'panels'
  dtype: str
  view: MatrixView
  stretch: int

  def matrix(self, shape: tuple[int, ...]) -> layout.Matrix:
    """The packed matrix of a parameter of some shape."""
    return layout.Matrix(self.dtype, *self.view.matrix_shape(shape), self.stretch)

  def parts(self, name: str, shape: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct((self.matrix(shape).n_bytes,), np.uint8)}

  def encode(self, name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    return {name: layout.pack(self.view.to_matrix(array), self.matrix(array.shape))}

  def value(self, name: str, shape: tuple[int, ...], tensors: dict[str, np.ndarray]) -> Any:
    return PackedMatrix(tensors[name], self, shape)


def to_json(layout_: Layout) -> dict[str, Any]:
  """A layout as JSON values."""
  return {'kind': layout_.kind} | dataclasses.asdict(layout_)


def from_json(values: dict[str, Any], shape: tuple[int, ...]) -> Layout:
  """The layout that `to_json` wrote, of a parameter of some shape.

  Raises:
    ValueError: if it is not one, or does not fit the shape.
  """
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
      _require(sorted(found.view.axes) == list(range(len(shape))) and type(found.view.in_blocks) is bool)
      _require(type(found.view.n_input_axes) is int and 0 < found.view.n_input_axes < len(shape))
    else:
      _require(False)
  except (TypeError, KeyError) as error:
    raise ValueError from error
  return found


def _require(condition: bool) -> None:
  if not condition:
    raise ValueError
