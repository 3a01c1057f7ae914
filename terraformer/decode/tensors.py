"""Tensors in safetensors files, written one at a time and mapped into memory for reading.

Any safetensors reader opens the files. Every tensor begins at a multiple of 64 bytes, so that JAX computes with the
mapped file without a copy. The format allows no gaps, so tensors of zeros fill them. A large model uses several files,
with an index like Hugging Face's.
"""

import itertools
import json
import math
import mmap
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from terraformer.config import UserError, unreadable

ALIGNMENT = 64  # bytes
INDEX = 'model.safetensors.index.json'
_SINGLE = 'model.safetensors'
_PADDING = '__padding__.'
_DTYPES = {
  'F32': np.dtype(np.float32),
  'BF16': np.dtype(ml_dtypes.bfloat16),
  'I8': np.dtype(np.int8),
  'U8': np.dtype(np.uint8),
  'I32': np.dtype(np.int32),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_AGAIN = 'copy or export the bundle again'
_LONGEST_HEADER = 100_000_000  # bytes, as in the reference implementation


def write_tensors(
  folder: Path, shapes: dict[str, Any], read: Callable[[str], np.ndarray], shard_bytes: float = 4e9
) -> dict[str, int]:
  """Writes tensors, with only one at a time in memory, and returns the `checksum` of each.

  Args:
    folder: an existing folder.
    shapes: name -> an object with `shape` and `dtype`, in the order in which the tensors are written.
    read: returns a tensor by name; called once for each name.
    shard_bytes: maximum size of a file; a tensor that would exceed it starts a new file.
  """
  shards = _shards(shapes, shard_bytes)
  names = [_shard_name(index, len(shards)) for index in range(len(shards))]
  checksums: dict[str, int] = {}
  for name, shard in zip(names, shards, strict=True):
    checksums |= _write_shard(folder / name, shard, read)
  if len(shards) > 1:
    total = sum(_size(shape) for shape in shapes.values())
    places = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    (folder / INDEX).write_text(json.dumps({'metadata': {'total_size': total}, 'weight_map': places}, indent=1))
  return checksums


def map_tensors(folder: Path, rows: Callable[[str], bool] = lambda _: False) -> dict[str, np.ndarray]:
  """Returns all tensors of a folder, mapped into memory: bytes are read only when they are used.

  Args:
    folder: the folder with the files.
    rows: returns whether the tensor of this name is read by single, scattered rows; the system then does not read
      ahead.

  Raises:
    UserError: if a file or tensor is missing, truncated or invalid; names the file and, if known, the tensor.
  """
  found: dict[str, np.ndarray] = {}
  for file, expected in _files(folder).items():
    tensors = _map_file(folder / file, rows)
    for name in sorted(expected - tensors.keys()):
      raise UserError(f'{folder / file}: the tensor {name}, which {INDEX} lists, is missing; export the bundle again')
    found |= tensors
  return found


def files_of(folder: Path, tensors: Iterable[str]) -> dict[str, Path]:
  """Returns the file of each tensor in a folder."""
  if not (folder / INDEX).exists():
    return dict.fromkeys(tensors, folder / _SINGLE)
  return {name: folder / file for name, file in _read_index(folder / INDEX).items()}


def _files(folder: Path) -> dict[str, set[str]]:
  """Returns the files of a folder, each with the tensors that the index, if there is one, lists for it."""
  if not (folder / INDEX).exists():
    return {_SINGLE: set()}
  files: dict[str, set[str]] = {}
  for name, file in _read_index(folder / INDEX).items():
    files.setdefault(file, set()).add(name)
  return files


def checksum(tensor: np.ndarray) -> int:
  """Returns the CRC-32 of a tensor's bytes."""
  return zlib.crc32(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)


def tensor_files(names: list[str]) -> list[str]:
  """Returns those of the file names that belong to weights."""
  return [name for name in names if name == INDEX or (name.startswith('model') and name.endswith('.safetensors'))]


def _size(shape: Any) -> int:
  return math.prod(shape.shape) * np.dtype(shape.dtype).itemsize


def _shard_name(index: int, count: int) -> str:
  return _SINGLE if count == 1 else f'model-{index + 1:05}-of-{count:05}.safetensors'


def _shards(shapes: dict[str, Any], shard_bytes: float) -> list[dict[str, Any]]:
  shards: list[dict[str, Any]] = [{}]
  size = 0
  for name, shape in shapes.items():
    if shards[-1] and size + _size(shape) > shard_bytes:
      shards.append({})
      size = 0
    shards[-1][name] = shape
    size += _size(shape)
  return shards


def _write_shard(path: Path, shapes: dict[str, Any], read: Callable[[str], np.ndarray]) -> dict[str, int]:
  header: dict[str, Any] = {'__metadata__': {'format': 'np'}}
  end = 0
  for name, shape in shapes.items():
    begin, end = end, end + _size(shape)
    header[name] = {'dtype': _NAMES[np.dtype(shape.dtype)], 'shape': list(shape.shape), 'data_offsets': [begin, end]}
    if gap := -end % ALIGNMENT:
      header[f'{_PADDING}{name}'] = {'dtype': 'U8', 'shape': [gap], 'data_offsets': [end, end + gap]}
      end += gap
  text = json.dumps(header).encode()
  text += b' ' * (-(8 + len(text)) % ALIGNMENT)
  checksums = {}
  with path.open('wb') as file:
    file.write(len(text).to_bytes(8, 'little') + text)
    for name, shape in shapes.items():
      tensor = np.asarray(read(name), order='C')
      if tensor.shape != tuple(shape.shape) or tensor.dtype != shape.dtype:
        raise ValueError(f'{name}: expected {shape.dtype}{list(shape.shape)}, found {tensor.dtype}{list(tensor.shape)}')
      checksums[name] = checksum(tensor)
      file.write(tensor.reshape(-1).view(np.uint8).data)
      file.write(bytes(-tensor.nbytes % ALIGNMENT))
  return checksums


def _read_index(path: Path) -> dict[str, str]:
  """Returns tensor name -> file name."""
  try:
    places = json.loads(path.read_text(encoding='utf-8'))['weight_map']
    wrong = [file for file in places.values() if Path(file).name != file]
  except OSError as error:
    raise unreadable(path, error) from error
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    raise UserError(f'{path} is not an index of tensors in JSON: {error!r:.80}') from error
  if wrong:
    raise UserError(f'{path}: expected names of files in the same folder, found {wrong[0]!r:.80}')
  return places


def _map_file(path: Path, rows: Callable[[str], bool]) -> dict[str, np.ndarray]:
  try:
    with path.open('rb') as file:
      mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  except FileNotFoundError:
    raise UserError(f'{path} is missing; export the bundle again') from None
  except OSError as error:
    raise unreadable(path, error) from error
  except ValueError as error:  # an empty file, or an impossible name
    raise UserError(f'{path} cannot be mapped ({error}); export the bundle again') from None
  header, data = _split_header(path, np.frombuffer(mapped, np.uint8))
  first = len(mapped) - len(data)
  tensors, filled, places = {}, 0, []
  for name, entry in header.items():
    if name == '__metadata__':
      continue
    try:
      dtype, shape, (begin, end) = _DTYPES[entry['dtype']], tuple(entry['shape']), entry['data_offsets']
      if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise TypeError
    except (KeyError, ValueError, TypeError) as error:
      raise UserError(f'{path}: expected type, shape and offsets of the tensor {name}, found {entry!r:.80}') from error
    if end - begin != math.prod(shape) * dtype.itemsize:
      raise UserError(f'{path}: expected the tensor {name} of {dtype}{list(shape)}, found {end - begin:,} bytes')
    if end > len(data):
      found = f'{len(data):,} of {end:,} bytes'
      raise UserError(f'{path} is cut off before the end of the tensor {name} ({found}); {_AGAIN}')
    filled += end - begin
    places += [(begin, end, name)] if end > begin else []
    if not name.startswith(_PADDING):
      try:
        tensors[name] = data[begin:end].view(dtype).reshape(shape)
      except (ValueError, OverflowError) as error:  # too many dimensions for an array, or too large ones
        raise UserError(f'{path}: no array can have the shape of the tensor {name}: {entry!r:.80}') from error
      if rows(name):
        page = (first + begin) // mmap.PAGESIZE * mmap.PAGESIZE
        mapped.madvise(mmap.MADV_RANDOM, page, first + end - page)
  if filled != len(data):
    raise UserError(f'{path}: expected {filled:,} bytes of tensors, found {len(data):,}; {_AGAIN}')
  for (_, end, name), (begin, _, other) in itertools.pairwise(sorted(places)):
    if begin < end:
      raise UserError(f'{path}: the tensors {name} and {other} overlap; export the bundle again')
  return tensors


def _split_header(path: Path, data: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
  length = int.from_bytes(data[:8].tobytes(), 'little')
  if len(data) < 8 or length > _LONGEST_HEADER:
    raise UserError(f'{path} is not a safetensors file: it has no valid header')
  if length > len(data) - 8:
    raise UserError(f'{path} is cut off in its header ({len(data) - 8:,} of {length:,} bytes); {_AGAIN}')
  try:
    header = json.loads(data[8 : 8 + length].tobytes())
    if not isinstance(header, dict):
      raise ValueError(f'expected an object, found {type(header).__name__}')
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path} is not a safetensors file: its header is not valid JSON: {error}') from error
  return header, data[8 + length :]
