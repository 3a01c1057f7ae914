"""What this machine can do, and what a process holds of it."""

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
  """Bytes a second that all cores together read from memory: the best of some runs over 1 GB."""
  parts = np.array_split(np.ones(_READ_BYTES // 4, np.float32), n_cores())
  best = 0.0
  with concurrent.futures.ThreadPoolExecutor(n_cores()) as pool:
    for _ in range(repeats):
      begun = time.perf_counter()
      list(pool.map(np.max, parts))
      best = max(best, _READ_BYTES / (time.perf_counter() - begun))
  return best


def memory_bytes() -> int:
  """Of this machine, used or not."""
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def require_memory(n_bytes: int, what: str) -> None:
  """Raises UserError if this machine has less memory: the system would end the process without a word."""
  most = memory_bytes()
  if n_bytes > most:
    raise UserError(f'{what}: expected at most the {most / 1e9:,.0f} GB of this machine, found {n_bytes / 1e9:,.0f} GB')


def require_disk(n_bytes: int, folder: str | None, what: str) -> None:
  """Raises UserError if a folder has less room; None for the system's folder of temporary files."""
  folder = folder or tempfile.gettempdir()
  try:
    most = shutil.disk_usage(folder).free
  except OSError as error:
    raise refused(folder, 'a folder that can be written', error) from error
  if n_bytes > most:
    raise UserError(
      f'{what}: expected at most the {most / 1e9:,.0f} GB that are free in {folder}, found {n_bytes / 1e9:,.0f} GB'
    )


def resident_bytes() -> int:
  """Memory of this process, mapped files included as far as they are in memory."""
  pages = int(Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE')


class Pool:
  """A mapped file of small random numbers, of which models of any size are cut, as they are from a bundle's files.

  Models that are measured side by side share it, so that several fit where one does. Any two bytes are a bfloat16
  number between -0.05 and 0.05, and so are any four as float32.
  """

  def __init__(self, data: mmap.mmap):
    self._data = data

  def cut(self, shapes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of these shapes and types, one behind the other, each at a multiple of 64 bytes."""
    arrays, at = {}, 0
    for name, shape in shapes.items():
      size = int(np.prod(shape.shape))
      arrays[name] = np.frombuffer(self._data, shape.dtype, size, at).reshape(shape.shape)
      at += -(-arrays[name].nbytes // 64) * 64
    return arrays

  def forget(self) -> None:
    """Takes all pages out of this process's memory; the file keeps them."""
    self._data.madvise(mmap.MADV_DONTNEED)


def bytes_of(shapes: dict[str, np.ndarray]) -> int:
  """Bytes of the pool that `cut` takes for these shapes."""
  return sum(-(-int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize // 64) * 64 for x in shapes.values())


@contextmanager
def random_pool(n_bytes: int, folder: str | None = None) -> Iterator[Pool]:
  """A pool of at least `n_bytes`, whose file is in `folder` and gone afterwards."""
  numbers = np.random.default_rng(0).uniform(-0.05, 0.05, _BLOCK // 2).astype(ml_dtypes.bfloat16)
  with tempfile.TemporaryFile(dir=folder) as file:
    for _ in range(-(-n_bytes // _BLOCK)):
      file.write(numbers.view(np.uint8).data)
    file.flush()
    os.fsync(file.fileno())  # or the system writes while others measure
    yield Pool(mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ))
