"""Writes a run's checkpoint from parameters alone, one layer at a time.

Such a checkpoint has no optimizer state. It is scored, exported, and other runs begin with it (`InitFromConfig`).
"""

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from terraformer import paths
from terraformer.config import ModelConfig, RunConfig, UserError, to_dict
from terraformer.data.tokenizer import Tokenizer
from terraformer.layers.parameter import facts_of
from terraformer.models.make import abstract_model
from terraformer.models.parameters import flatten, layer_name, split_module, unflatten
from terraformer.training.checkpoint import FORMAT
from terraformer.training.manifest import write_manifest

# Stacks of arrays of at most so many bytes are written at once.
_SMALL = 1 << 22
_PIECE_BYTES = 1 << 26  # of a chunk, as checkpoints of training have them


def write_run(
  workdir: Path,
  step: int,
  run: RunConfig,
  gin_text: str,
  tokenizer: Tokenizer,
  read: Callable[[str], np.ndarray],
  others: Mapping[str, bytes],
) -> None:
  """Writes the folder of a run, which appears whole or not at all.

  Args:
    workdir: a folder that does not exist, or is empty.
    step: number of the checkpoint.
    run: the configuration of the run.
    gin_text: gin that makes it again.
    tokenizer: the vocabulary.
    read: gives a float32 parameter of the layerwise model by name, once each.
    others: contents of other files in the folder, by name.

  Raises:
    UserError: if `workdir` holds anything.
  """
  workdir = paths.target_of(Path(workdir).absolute())
  require_new(workdir)
  paths.make_folder(workdir.parent)
  with tempfile.TemporaryDirectory(prefix='.import-', dir=workdir.parent) as folder:
    new = Path(folder) / 'new'
    checkpoint = new / 'checkpoints' / str(step)
    checkpoint.mkdir(parents=True)
    for name, data in {'vocabulary.model': tokenizer.model_bytes, **others}.items():
      (new / name).write_bytes(data)
    _write_state(checkpoint / 'state', run.model, read)
    described = {
      'format': FORMAT,
      'config': to_dict(run),
      'gin': gin_text,
      'data_fingerprint': '',  # the data of its training are not known
      'corpus_fingerprint': '',
      'vocabulary': {'sentinels': tokenizer.sentinels, 'fingerprint': tokenizer.fingerprint},
      'recent_losses': [],
    }
    ocp.Checkpointer(ocp.JsonCheckpointHandler()).save(
      paths.plain(checkpoint / 'run'), args=ocp.args.JsonSave(described)
    )
    shutil.copyfile(checkpoint / 'state' / '_CHECKPOINT_METADATA', checkpoint / '_CHECKPOINT_METADATA')
    write_manifest(checkpoint)
    if workdir.exists():
      workdir.rmdir()
    new.rename(workdir)


def require_new(workdir: Path) -> None:
  """Raises UserError unless nothing is there, or an empty folder."""
  if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
    raise UserError(f'{workdir}: the folder of an imported run must be new or empty')


def _write_state(path: Path, model: ModelConfig, read: Callable[[str], np.ndarray]) -> None:
  structure = abstract_model(model)
  shapes, facts = flatten(split_module(structure)[1]), facts_of(structure)
  # orbax writes the names and types of arrays that are nearly empty; the arrays then take the places of these.
  placeholders = {name: np.zeros((1,) * len(shape.shape), shape.dtype) for name, shape in shapes.items()}
  ocp.PyTreeCheckpointer().save(paths.plain(path), {'params': unflatten(placeholders)})
  files = {'driver': 'file', 'path': f'{paths.plain(path)}/'}
  for name, shape in shapes.items():
    is_stack, size = facts[name].loop is not None, math.prod(shape.shape) * shape.dtype.itemsize
    in_one = not is_stack or size <= _SMALL
    array = _created(files, name, shape.shape, rows=shape.shape[0] if in_one else 1)
    if not is_stack:
      array.write(read(name)).result()
      continue
    layers = (read(layer_name(name, facts[name], layer)) for layer in range(shape.shape[0]))
    if in_one:
      array.write(np.stack(list(layers))).result()
    else:
      for layer, values in enumerate(layers):
        array[layer].write(values).result()


def _created(files: dict[str, str], name: str, shape: tuple[int, ...], rows: int) -> tensorstore.TensorStore:
  """A new array whose chunks have at most so many rows."""
  row_bytes = 4 * math.prod(shape[1:])
  spec: dict[str, Any] = {
    'driver': 'zarr',
    'kvstore': {'driver': 'ocdbt', 'base': files, 'path': f'params.{name}/'},
    'metadata': {
      'shape': shape,
      'chunks': [max(1, min(rows, _PIECE_BYTES // row_bytes)), *shape[1:]],
      'dtype': '<f4',
      'compressor': None,
    },
  }
  return tensorstore.open(spec, create=True, delete_existing=True).result()
