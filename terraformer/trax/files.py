"""The files of a checkpoint, and the arrays in them.

A checkpoint is named by its main file, `BASE.pkl.gz`. The weights are in that file or, since 2021, beside it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from terraformer.config import UserError
from terraformer.trax.pickles import SHAPE, Array, Record, Spilled, read_pickle
from terraformer.trax.source import Source, opened
from terraformer.trax.spill import Spill, SpilledArray, require_weights

_MAIN = '.pkl.gz'
# Since 10 March 2021, and in the two weeks before.
_WEIGHTS = ('.weights.npy.gz', '.pkl.gz.npy')
_LONGEST_HEADER = 10_000  # characters
_MOST_AXES = 32


@dataclasses.dataclass(frozen=True)
class Found:
  """The files of a checkpoint.

  Attributes:
    main: the pickle.
    weights: those with weights alone; empty if they are in the pickle.
    config: the `config.gin`.
  """

  main: Path
  weights: tuple[Path, ...]
  config: Path


@dataclasses.dataclass(frozen=True)
class Description:
  """What the pickle says of a checkpoint.

  Attributes:
    step: of training; None if it does not say.
    lengths: of the sources and targets that the model was trained on; None if it does not say.
    weights: the entries, if they are in the pickle.
    n_files: files of weights that it says there are; None for those that are one.
  """

  step: int | None
  lengths: tuple[int, int] | None
  weights: tuple[SpilledArray, ...] | None
  n_files: int | None


def find(checkpoint: Path, config: Path | None) -> Found:
  """Returns the files of a checkpoint.

  Args:
    checkpoint: the main file, or a folder with one.
    config: the `config.gin`; None for the one beside the checkpoint.

  Raises:
    UserError: if a file is missing, or the folder has several checkpoints and none is `model.pkl.gz`.
  """
  main = _main(checkpoint) if checkpoint.is_dir() else checkpoint
  if not main.is_file():
    raise UserError(f'{checkpoint}: there is no such file; give a checkpoint of trax, BASE.pkl.gz, or its folder')
  if not main.name.endswith(_MAIN):
    raise UserError(f'{main}: this is not the main file of a checkpoint, whose name ends in {_MAIN}')
  config = config or main.with_name('config.gin')
  if not config.is_file():
    raise UserError(f'{config}: there is no such file; give the config.gin of the checkpoint with --config')
  base = main.name.removesuffix(_MAIN)
  beside = [main.with_name(base + ending) for ending in _WEIGHTS]
  weights = [path for path in beside if path.is_file()][:1]
  if not weights:
    while (shard := main.with_name(f'{main.name}.shard{len(weights)}')).is_file():
      weights.append(shard)
  return Found(main, tuple(weights), config)


def _main(folder: Path) -> Path:
  names = sorted(path.name for path in folder.iterdir() if path.name.endswith(_MAIN))
  if 'model' + _MAIN in names:
    return folder / ('model' + _MAIN)
  if len(names) == 1:
    return folder / names[0]
  if not names:
    raise UserError(f'{folder}: there is no checkpoint of trax, a file whose name ends in {_MAIN}, in this folder')
  raise UserError(f'{folder}: there are several checkpoints in this folder; give one of them: {", ".join(names)}')


def read_description(found: Found, spill: Spill) -> Description:
  """Reads the pickle of a checkpoint.

  Raises:
    UserError: if it is damaged, asks for anything that a checkpoint does not need, or is of no checkpoint.
  """
  with opened(found.main) as source:
    values = read_pickle(source, spill)
  if not isinstance(values, dict) or 'flat_weights' not in values:
    raise UserError(f'{found.main}: this pickle is not a checkpoint of trax, which has an entry flat_weights')
  weights, step = values['flat_weights'], values.get('step')
  is_inside = isinstance(weights, (list, tuple))
  if not is_inside and (type(weights) is not int or weights < 0):
    raise UserError(f'{found.main}: the entry flat_weights must be a list or a number, not {weights!r:.80}')
  if not is_inside and not found.weights:
    base = found.main.name.removesuffix(_MAIN)
    raise UserError(f'{found.main}: the weights are in another file, {base}.weights.npy.gz, which is missing')
  are_shards = any('.shard' in path.name for path in found.weights)
  return Description(
    step if type(step) is int else None,
    _lengths(values.get('input_signature')),
    tuple(_spilled(each, spill, f'{found.main}: entry {n}') for n, each in enumerate(weights)) if is_inside else None,
    weights if are_shards and not is_inside else None,
  )


def read_weights(
  found: Found, description: Description, spill: Spill, report: Callable[[int], object], expect: 'Expect'
) -> Iterator[SpilledArray]:
  """Yields the entries in the file's order.

  Args:
    found: the files.
    description: what the pickle says.
    spill: takes the arrays.
    report: called with the number of stored bytes that were read since the last call.
    expect: called with a name for messages and the shape of each entry, before its data are read.

  Raises:
    UserError: if a file is damaged, or an entry has a type that weights do not have; or what `expect` raises.
  """
  if description.weights is not None:
    for number, array in enumerate(description.weights):
      expect(f'{found.main}: entry {number}', array.shape)
      yield array
    return
  if description.n_files is None:
    with opened(found.weights[0], report) as source:
      yield from _npy_arrays(source, spill, expect)
    return
  if description.n_files != len(found.weights):
    raise UserError(
      f'{found.main}: the weights are in {description.n_files} files, but there are {len(found.weights)}: '
      f'{found.main.name}.shard0 and so on'
    )
  number = 0
  for path in found.weights:
    with opened(path, report) as source:
      entries = read_pickle(source, spill)
    if not isinstance(entries, list):
      raise UserError(f'{path}: this pickle is not a list of weights')
    for entry in entries:
      array = _spilled(entry, spill, f'{path}: entry {number}')
      expect(f'{path}: entry {number}', array.shape)
      yield array
      number += 1


Expect = Callable[[str, tuple[int, ...]], None]


def _npy_arrays(source: Source, spill: Spill, expect: Expect) -> Iterator[SpilledArray]:
  number = 0
  while magic := source.read_or_end(np.lib.format.MAGIC_LEN):
    name = f'{source.name}: entry {number}'
    shape, is_fortran, dtype = _npy_header(source, magic, name)
    require_weights(dtype, name)
    expect(name, shape)
    place = spill.write(source.pieces(int(np.prod(shape, dtype=object)) * dtype.itemsize))
    yield spill.array(shape, dtype, is_fortran, place, name)
    number += 1


def _npy_header(source: Source, magic: bytes, name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
  if magic[:-2] != np.lib.format.MAGIC_PREFIX or magic[-2] not in (1, 2):
    raise UserError(f'{name}: this is not an array in the format of numpy; the file is damaged or another')
  read = np.lib.format.read_array_header_1_0 if magic[-2] == 1 else np.lib.format.read_array_header_2_0
  try:
    shape, is_fortran, dtype = read(source, max_header_size=_LONGEST_HEADER)
  except UserError:
    raise
  except ValueError as error:
    raise UserError(f'{name}: cannot read the header of the array: {str(error).splitlines()[0]:.200}') from error
  if len(shape) > _MOST_AXES or any(type(n) is not int or n < 0 for n in shape):
    raise UserError(f'{name}: the array has an impossible shape, {shape!r:.80}')
  return shape, is_fortran, dtype


def _spilled(entry: Any, spill: Spill, name: str) -> SpilledArray:
  """An array of a pickle on disk; bfloat16 is stored with the name of the type beside it."""
  if isinstance(entry, tuple) and len(entry) == 2 and entry[1] == 'bfloat16':
    entry = entry[0]
  if not isinstance(entry, Array) or entry.type is None:
    raise UserError(f'{name}: this is not an array but {type(entry).__name__}')
  require_weights(entry.type.dtype, name)
  place = entry.data.place if isinstance(entry.data, Spilled) else spill.write([bytes(entry.data)])
  return spill.array(entry.shape, entry.type.dtype, entry.is_fortran, place, name)


def _lengths(signature: Any) -> tuple[int, int] | None:
  """The lengths in a signature of sources and targets, and perhaps their weights."""
  if not isinstance(signature, (tuple, list)) or len(signature) < 2:
    return None
  shapes = [each.fields.get('shape') for each in signature[:2] if isinstance(each, Record) and each.kind == SHAPE]
  lengths = [shape[1] for shape in shapes if isinstance(shape, tuple) and len(shape) == 2]
  if len(lengths) != 2:
    return None
  source, target = lengths
  return (source, target) if type(source) is type(target) is int and min(source, target) > 0 else None


def stored_bytes(paths: Iterable[Path]) -> int:
  """Bytes of files together."""
  return sum(path.stat().st_size for path in paths)
