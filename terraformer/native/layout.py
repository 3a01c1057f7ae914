"""The packed layout of weights for the kernels, version 1.

A matrix of K inputs and N outputs is cut into stretches of inputs (the last may be shorter), and each stretch into
panels of 16 outputs (the last is padded with zeros). Panels follow each other in memory, stretch by stretch, so that a
thread reads a range of panels as one piece of memory, however many threads there are.

A panel consists of
- in int8, 16 float32 scales, one per output: a weight is its number times the scale, so the numbers that share a scale
  are those of one output in one stretch;
- its numbers, in pairs of inputs (padded with a zero): [pair][2][output] in float32, else [pair][output][2];
- zeros up to a multiple of 64 bytes.

`Matrix` says type, sizes and stretch; another type, of 4 bits for example, would be one more name there. Tables whose
rows are read one by one are plain arrays, in int8 with a separate scale per row.

K inputs, N outputs, P panels, C pairs of inputs.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

VERSION = 1
TYPES = ('float32', 'bfloat16', 'int8')
PANEL, PAGE, _ALIGNMENT = 16, 64, 64  # outputs, positions of the cache, bytes
# Inputs of a stretch. Sums of int8 times int16 overflow 32 bits beyond 1,024.
_STRETCH, _LONG_STRETCH, _LONG = 256, 512, 4096

_NUMPY = {'float32': np.dtype(np.float32), 'bfloat16': np.dtype(ml_dtypes.bfloat16), 'int8': np.dtype(np.int8)}


def stretch_of(n_inputs: int) -> int:
  """Returns the usual stretch of a matrix."""
  return min(n_inputs, _LONG_STRETCH if n_inputs >= _LONG else _STRETCH)


@dataclasses.dataclass(frozen=True)
class Matrix:
  """The description of a packed matrix.

  Attributes:
    type: one of `TYPES`.
    n_inputs, n_outputs: K and N.
    stretch: inputs that are summed separately.
  """

  type: str
  n_inputs: int
  n_outputs: int
  stretch: int

  @property
  def n_panels(self) -> int:
    """P."""
    return -(-self.n_outputs // PANEL)

  @property
  def stretches(self) -> list[tuple[int, int]]:
    """The range [begin, end) of inputs of each stretch."""
    return [(at, min(at + self.stretch, self.n_inputs)) for at in range(0, self.n_inputs, self.stretch)]

  def panel_bytes(self, n_inputs: int) -> int:
    """Bytes of a panel of a stretch of `n_inputs` inputs."""
    numbers = 2 * -(-n_inputs // 2) * PANEL * _NUMPY[self.type].itemsize
    return -(-(self._header + numbers) // _ALIGNMENT) * _ALIGNMENT

  @property
  def n_bytes(self) -> int:
    """Bytes of the packed matrix."""
    return self.n_panels * sum(self.panel_bytes(end - begin) for begin, end in self.stretches)

  @property
  def _header(self) -> int:
    return 4 * PANEL if self.type == 'int8' else 0


def pack(weights_KxN: np.ndarray, matrix: Matrix) -> np.ndarray:
  """Packs a matrix into bytes, uint8.

  Raises:
    ValueError: if the weights do not have the matrix's shape.
  """
  if weights_KxN.shape != (matrix.n_inputs, matrix.n_outputs):
    raise ValueError(f'expected {matrix.n_inputs, matrix.n_outputs}, found {weights_KxN.shape}')
  packed, at = aligned(matrix.n_bytes), 0
  for begin, end in matrix.stretches:
    size = matrix.panel_bytes(end - begin)
    panels = packed[at : at + matrix.n_panels * size].reshape(matrix.n_panels, size)
    _pack_stretch(np.asarray(weights_KxN[begin:end], np.float32), matrix, panels)
    at += panels.size
  return packed


def _pack_stretch(weights_KxN: np.ndarray, matrix: Matrix, panels_PxB: np.ndarray) -> None:
  n_inputs, n_outputs = weights_KxN.shape
  even, padded = -n_inputs % 2, matrix.n_panels * PANEL
  weights_KxN = np.pad(weights_KxN, ((0, even), (0, padded - n_outputs)))
  header = matrix._header
  if matrix.type == 'int8':
    scale_N = np.abs(weights_KxN).max(0) / 127
    weights_KxN = np.rint(weights_KxN / np.where(scale_N > 0, scale_N, 1))
    panels_PxB[:, :header] = scale_N.astype(np.float32).reshape(matrix.n_panels, PANEL).view(np.uint8)
  pairs_CxIxPxN = weights_KxN.astype(_NUMPY[matrix.type]).reshape(-1, 2, matrix.n_panels, PANEL)
  order = (2, 0, 1, 3) if matrix.type == 'float32' else (2, 0, 3, 1)
  numbers = np.ascontiguousarray(pairs_CxIxPxN.transpose(order)).reshape(matrix.n_panels, -1).view(np.uint8)
  panels_PxB[:, header : header + numbers.shape[1]] = numbers


def unpack(packed: np.ndarray | jax.Array, matrix: Matrix) -> np.ndarray | jax.Array:
  """Returns the float32 KxN matrix; a JAX array is unpacked by JAX, inside compiled programs as well."""
  found, at = [], 0
  for begin, end in matrix.stretches:
    n_inputs, size = end - begin, matrix.panel_bytes(end - begin)
    panels_PxB = packed[at : at + matrix.n_panels * size].reshape(matrix.n_panels, size)
    at += panels_PxB.size
    n_pairs, dtype = -(-n_inputs // 2), _NUMPY[matrix.type]
    last = matrix._header + n_pairs * 2 * PANEL * dtype.itemsize
    numbers = _bits_as(panels_PxB[:, matrix._header : last], dtype).astype(np.float32)
    if matrix.type == 'float32':
      weights_PxKxN = numbers.reshape(matrix.n_panels, -1, PANEL)
    else:
      weights_PxKxN = numbers.reshape(matrix.n_panels, n_pairs, PANEL, 2).swapaxes(2, 3)
      weights_PxKxN = weights_PxKxN.reshape(matrix.n_panels, -1, PANEL)
    if matrix.type == 'int8':
      scale_PxN = _bits_as(panels_PxB[:, : matrix._header], np.dtype(np.float32))
      weights_PxKxN = weights_PxKxN * scale_PxN[:, None]
    found.append(weights_PxKxN.swapaxes(0, 1).reshape(-1, matrix.n_panels * PANEL)[:n_inputs, : matrix.n_outputs])
  return (np if isinstance(packed, np.ndarray) else jnp).concatenate(found)


def _bits_as(bytes_PxB: np.ndarray | jax.Array, dtype: np.dtype) -> np.ndarray | jax.Array:
  """Rows of bytes as rows of numbers of another type."""
  if isinstance(bytes_PxB, np.ndarray):
    return np.ascontiguousarray(bytes_PxB).view(dtype)
  if dtype.itemsize > 1:
    bytes_PxB = bytes_PxB.reshape(len(bytes_PxB), -1, dtype.itemsize)
  return jax.lax.bitcast_convert_type(bytes_PxB, dtype)


def pack_rows(rows_NxK: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray | None]:
  """Converts rows to a type; returns them and, for int8, their scales."""
  if kind != 'int8':
    return rows_NxK.astype(_NUMPY[kind], copy=False), None
  packed, scale_N = np.empty(rows_NxK.shape, np.int8), np.empty(len(rows_NxK), np.float32)
  for at in range(0, len(rows_NxK), 1 << 12):  # in blocks, to keep memory low
    rows = np.asarray(rows_NxK[at : at + (1 << 12)], np.float32)
    scale = np.abs(rows).max(1) / 127
    packed[at : at + (1 << 12)] = np.rint(rows / np.where(scale > 0, scale, 1)[:, None])
    scale_N[at : at + (1 << 12)] = scale
  return packed, scale_N


def unpack_rows(packed_NxK: np.ndarray, scale_N: np.ndarray | None) -> np.ndarray:
  """Returns the float32 rows."""
  rows_NxK = packed_NxK.astype(np.float32)
  return rows_NxK if scale_N is None else rows_NxK * scale_N[:, None]


def aligned(n_bytes: int) -> np.ndarray:
  """Returns zeros, uint8, aligned to 64 bytes."""
  memory = np.zeros(n_bytes + _ALIGNMENT, np.uint8)
  first = -memory.ctypes.data % _ALIGNMENT
  return memory[first : first + n_bytes]


def n_pages(n_slots: int) -> int:
  """Returns the number of pages that have this many positions of the cache."""
  return -(-n_slots // PAGE)


def head_bytes(kind: str, width: int) -> int:
  """Bytes of one head in a page of 64 positions of the cache; see `csrc/types.h`."""
  numbers = 2 * math.ceil(width / 2) * PAGE + PAGE * math.ceil(width / PANEL) * PANEL
  return (8 * PAGE if kind == 'int8' else 0) + numbers * _NUMPY[kind].itemsize


def record_bytes(kind: str, width: int) -> int:
  """Bytes of one position of a head in the cache of hashed attention; see `csrc/types.h`."""
  numbers = 2 * math.ceil(width / PANEL) * PANEL * _NUMPY[kind].itemsize
  return -(-(numbers + (8 if kind == 'int8' else 0)) // _ALIGNMENT) * _ALIGNMENT
