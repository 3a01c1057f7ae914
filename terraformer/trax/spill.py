"""Arrays on disk while a checkpoint is converted: they come in the file's order and are needed in another."""

import dataclasses
import math
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from terraformer.config import UserError


@dataclasses.dataclass(frozen=True)
class SpilledArray:
  """An array on disk.

  Attributes:
    shape, dtype: of the array.
    is_fortran: whether the first axis varies fastest.
    place: where its bytes begin.
    file: where they are.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  is_fortran: bool
  place: int
  file: IO[bytes]

  @property
  def n_bytes(self) -> int:
    """Its size."""
    return math.prod(self.shape) * self.dtype.itemsize

  def read(self) -> np.ndarray:
    """Returns the array as float32; uint16 holds the bits of bfloat16."""
    self.file.seek(self.place)
    # Not mapped: mapped pages would count as the memory of this process.
    flat = np.fromfile(self.file, self.dtype, math.prod(self.shape))
    if self.dtype == np.uint16:
      flat = (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.reshape(self.shape, order='F' if self.is_fortran else 'C')


class Spill:
  """A temporary file of arrays, one behind the other."""

  def __init__(self, file: IO[bytes]):
    self._file = file
    self._end = 0

  def write(self, pieces: Iterable[bytes]) -> int:
    """Appends bytes and returns where they begin."""
    place = self._end
    self._file.seek(place)
    for piece in pieces:
      self._file.write(piece)
      self._end += len(piece)
    self._file.flush()
    return place

  def array(self, shape: tuple[int, ...], dtype: np.dtype, is_fortran: bool, place: int, name: str) -> SpilledArray:
    """Returns the array whose bytes begin at `place`.

    Raises:
      UserError: if it is of a type that weights do not have; `name` says which array it is.
    """
    require_weights(dtype, name)
    return SpilledArray(shape, dtype, is_fortran, place, self._file)


def require_weights(dtype: np.dtype, name: str) -> None:
  """Raises UserError unless arrays of this type are weights."""
  if dtype not in (np.dtype('<f4'), np.dtype('<u2')):
    raise UserError(f'{name}: weights are float32, or bfloat16 stored as uint16, but this array is {dtype}')


@contextmanager
def spilling(folder: Path) -> Iterator[Spill]:
  """Opens a spill on the disk of `folder`; it has no name, so nothing is left of it however the process ends."""
  with tempfile.TemporaryFile(dir=folder) as file:
    yield Spill(file)
