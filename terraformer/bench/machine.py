"""Measures the resources of this machine, and those that a process uses."""

import concurrent.futures
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes
import numpy as np

from terraformer.config import UserError, refused

_BLOCK = 1 << 26  # bytes
_READ_BYTES = 1 << 30


def n_cores() -> int:
  """Cores that this process may use."""
  return len(os.sched_getaffinity(0))


def read_bandwidth(repeats: int = 5) -> float:
  """Returns the bytes per second that all cores together read from memory: the best of several runs over 1 GB."""
  parts = np.array_split(np.ones(_READ_BYTES // 4, np.float32), n_cores())
  best = 0.0
  with concurrent.futures.ThreadPoolExecutor(n_cores()) as pool:
    for _ in range(repeats):
      begun = time.perf_counter()
      list(pool.map(np.max, parts))
      best = max(best, _READ_BYTES / (time.perf_counter() - begun))
  return best


def memory_bytes() -> int:
  """Returns the memory of this machine, used or not."""
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def require_memory(n_bytes: int, what: str) -> None:
  """Raises UserError if this machine has less memory; otherwise the system would kill the process without a message."""
  most = memory_bytes()
  if n_bytes > most:
    raise UserError(f'{what} needs {n_bytes / 1e9:,.0f} GB of memory; this machine has {most / 1e9:,.0f} GB')


def require_disk(n_bytes: int, folder: str | None, what: str) -> None:
  """Raises UserError if the disk of a folder has less free space; None for the system's folder for temporary files."""
  folder = folder or tempfile.gettempdir()
  try:
    most = shutil.disk_usage(folder).free
  except OSError as error:
    raise refused(folder, 'write to', error) from error
  if n_bytes > most:
    raise UserError(f'{what} needs {n_bytes / 1e9:,.0f} GB of disk; {folder} has {most / 1e9:,.0f} GB free')


def resident_bytes() -> int:
  """Returns the resident memory of this process, including the resident parts of mapped files."""
  pages = int(Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE')


class Pool:
  """A mapped file of small random numbers, from which models of any size take their weights, as from a bundle's files.

  Models that are measured together share it, so that several need no more space than one. Any two bytes are a bfloat16
  number between -0.05 and 0.05, and any four bytes such a float32 number.
  """

  def __init__(self, data: mmap.mmap):
    self._data = data

  def cut(self, shapes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns consecutive arrays of these shapes and types, each aligned to 64 bytes."""
    arrays, at = {}, 0
    for name, shape in shapes.items():
      size = int(np.prod(shape.shape))
      arrays[name] = np.frombuffer(self._data, shape.dtype, size, at).reshape(shape.shape)
      at += -(-arrays[name].nbytes // 64) * 64
    return arrays

  def forget(self) -> None:
    """Removes all pages from this process's memory; the file keeps them."""
    self._data.madvise(mmap.MADV_DONTNEED)


def bytes_of(shapes: dict[str, np.ndarray]) -> int:
  """Returns the bytes of the pool that `cut` needs for these shapes."""
  return sum(-(-int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize // 64) * 64 for x in shapes.values())


@contextmanager
def random_pool(n_bytes: int, folder: str | None = None) -> Iterator[Pool]:
  """Yields a pool of at least `n_bytes`, with a temporary file in `folder` that is removed afterwards."""
  numbers = np.random.default_rng(0).uniform(-0.05, 0.05, _BLOCK // 2).astype(ml_dtypes.bfloat16)
  with tempfile.TemporaryFile(dir=folder) as file:
    for _ in range(-(-n_bytes // _BLOCK)):
      file.write(numbers.view(np.uint8).data)
    file.flush()
    os.fsync(file.fileno())  # so that the system does not write it during measurements
    yield Pool(mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ))
