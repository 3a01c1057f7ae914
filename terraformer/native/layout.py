"""How weights lie for the kernels: the packed layout, version 1.

A matrix of k inputs and n outputs is cut into stretches of inputs, the last of which may be shorter, and each stretch
into panels of 16 outputs, the last of which is filled up with zeros. Stretches follow each other, and in a stretch its
panels: so a thread reads a range of panels from memory in one piece, however many threads there are.

A panel is, one behind the other,
- with 8 bits or fewer, 16 scales, one an output, float32: a weight is its number times the scale. So the numbers that
  share a scale, a group, are one output's in one stretch;
- its numbers, input by input in pairs, a last odd one with zeros: in float32 as [pair][2][output], in less as
  [pair][output][2];
- zeros up to a multiple of 64 bytes.

Types are float32, bfloat16 and int8. A type is told beside the tensor, with inputs, outputs and stretch (see `Matrix`):
others, of 4 bits say, are further names in that place.

Rows that are picked one by one (`Rows`) lie as they are, [row][number], with 8 bits and a scale for each row apart. The
files are safetensors: a matrix is an array of bytes.

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
# Inputs that are added up, and have scales, apart: 8 bits by 16 overflow 32 beyond 1,024.
_STRETCH, _LONG_STRETCH, _LONG = 256, 512, 4096

_NUMPY = {'float32': np.dtype(np.float32), 'bfloat16': np.dtype(ml_dtypes.bfloat16), 'int8': np.dtype(np.int8)}


def stretch_of(n_inputs: int) -> int:
  """The length of the stretches that a plain matrix is cut into."""
  return min(n_inputs, _LONG_STRETCH if n_inputs >= _LONG else _STRETCH)


@dataclasses.dataclass(frozen=True)
class Matrix:
  """What a packed matrix is.

  Attributes:
    type: of `TYPES`.
    n_inputs, n_outputs: K and N.
    stretch: inputs that are added up apart.
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
    """First input of each stretch, and the first behind it."""
    return [(at, min(at + self.stretch, self.n_inputs)) for at in range(0, self.n_inputs, self.stretch)]

  def panel_bytes(self, n_inputs: int) -> int:
    """Of a panel of a stretch of so many inputs."""
    numbers = 2 * -(-n_inputs // 2) * PANEL * _NUMPY[self.type].itemsize
    return -(-(self._header + numbers) // _ALIGNMENT) * _ALIGNMENT

  @property
  def n_bytes(self) -> int:
    """Of the packed matrix."""
    return self.n_panels * sum(self.panel_bytes(end - begin) for begin, end in self.stretches)

  @property
  def _header(self) -> int:
    return 4 * PANEL if self.type == 'int8' else 0


def pack(weights_KxN: np.ndarray, matrix: Matrix) -> np.ndarray:
  """The packed form of a matrix, uint8.

  Raises:
    ValueError: if the weights are not of the matrix's shape.
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
  """The float32 KxN matrix that a packed one stands for; of a JAX array by JAX, inside compiled programs as well."""
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
  """Rows in another type, and the scales of each where it has 8 bits."""
  if kind != 'int8':
    return rows_NxK.astype(_NUMPY[kind], copy=False), None
  packed, scale_N = np.empty(rows_NxK.shape, np.int8), np.empty(len(rows_NxK), np.float32)
  for at in range(0, len(rows_NxK), 1 << 12):  # or a large tensor would be in memory several times
    rows = np.asarray(rows_NxK[at : at + (1 << 12)], np.float32)
    scale = np.abs(rows).max(1) / 127
    packed[at : at + (1 << 12)] = np.rint(rows / np.where(scale > 0, scale, 1)[:, None])
    scale_N[at : at + (1 << 12)] = scale
  return packed, scale_N


def unpack_rows(packed_NxK: np.ndarray, scale_N: np.ndarray | None) -> np.ndarray:
  """The float32 rows for which packed ones stand."""
  rows_NxK = packed_NxK.astype(np.float32)
  return rows_NxK if scale_N is None else rows_NxK * scale_N[:, None]


def aligned(n_bytes: int) -> np.ndarray:
  """Zeros, uint8, at a multiple of 64 bytes."""
  memory = np.zeros(n_bytes + _ALIGNMENT, np.uint8)
  first = -memory.ctypes.data % _ALIGNMENT
  return memory[first : first + n_bytes]


def head_bytes(kind: str, width: int) -> int:
  """Bytes of a head of the cache in a page of 64 positions; see `csrc/types.h`."""
  numbers = 2 * math.ceil(width / 2) * PAGE + PAGE * math.ceil(width / PANEL) * PANEL
  return (8 * PAGE if kind == 'int8' else 0) + numbers * _NUMPY[kind].itemsize
