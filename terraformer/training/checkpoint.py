"""Orbax checkpoints: parameters, optimizer state, step, and the config of the run.

A run's folder contains `checkpoints/STEP/{state,run,MANIFEST.json}`. `run` is JSON with the config, its gin text, and
the fingerprints of data and vocabulary. The manifest has the checksums of all files. With `vocabulary.model`, the
folder contains everything that decoding needs.
"""

import contextlib
import itertools
import os
import shutil
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from terraformer import paths
from terraformer.config import RunConfig, UserError, first_line, from_dict, migrations
from terraformer.config.words import newer
from terraformer.files import UnwritableError, rename_to_free, writing
from terraformer.models.make import abstract_model
from terraformer.models.parameters import Params, describe, flatten, split_module, unflatten
from terraformer.training.manifest import NAME, DamagedError, verify, write_manifest
from terraformer.training.state import State

FORMAT = 6
_READ = (4, 5, FORMAT)  # readable formats; the configs of older formats are migrated
# Larger arrays are stored in chunks along their leading axis, so that one layer can be read.
_PIECE_BYTES = 1 << 26


def folder(workdir: Path) -> Path:
  """Returns the folder of a run's checkpoints: `checkpoints`, or the folder itself if it holds permanent ones."""
  path = Path(workdir).absolute()
  return path if any(path.glob('[0-9]*/' + NAME)) else path / 'checkpoints'


def steps(workdir: Path) -> list[int]:
  """Returns the saved steps, newest first, without incomplete ones, whose folders have temporary names."""
  return sorted(
    (int(path.name) for path in folder(workdir).glob('*') if path.is_dir() and path.name.isdigit()), reverse=True
  )


def latest_step(workdir: Path, older_if_damaged: bool = True, before: int | None = None) -> int | None:
  """Returns the newest undamaged step, or None if nothing was saved.

  Args:
    workdir: folder of the run.
    older_if_damaged: whether to skip damaged steps, with a message about each on standard error.
    before: consider only earlier steps; None for all.

  Raises:
    DamagedError: if the newest step is damaged and `older_if_damaged` is false, or all steps are damaged.
  """
  damage = None
  found = [step for step in steps(workdir) if before is None or step < before]
  for step in found:
    try:
      verify(folder(workdir) / str(step))
      return step
    except DamagedError as error:
      if not older_if_damaged:
        raise
      damage = damage or error
      if step != found[-1]:
        print(f'{error}; looking for an older checkpoint', file=sys.stderr)
  if damage is not None:
    raise DamagedError(f'{damage}; {"no older one is intact" if found[1:] else "there is no older one"}') from damage
  return None


def require_step(workdir: Path, step: int | None = None) -> int:
  """Returns the newest undamaged step, or the requested one.

  Raises:
    UserError: if it is missing or damaged.
  """
  if step is not None:
    if step not in steps(workdir):
      raise UserError(f'{folder(workdir)}: there is no checkpoint of step {step}, only of {steps(workdir)}')
    verify(folder(workdir) / str(step))
    return step
  step = latest_step(workdir)
  if step is None:
    raise UserError(f'{workdir}: there is no checkpoint; give the folder of a run that has one')
  return step


def what_is_safe(workdir: Path) -> str:
  """Describes the newest undamaged step, for a run that must end."""
  for step in steps(workdir):
    with contextlib.suppress(DamagedError):
      verify(folder(workdir) / str(step))
      return f'step {step} is saved; run the same command again to resume from it'
  return 'no step has been saved yet'


def set_aside(workdir: Path, newer_than: int) -> None:
  """Renames steps that must not be used, to make room for saving them again."""
  for step in steps(workdir):
    if step > newer_than:
      rename_to_free(folder(workdir) / str(step), (f'{step}.aside{n or ""}' for n in itertools.count()))


def read_run(workdir: Path, step: int) -> tuple[RunConfig, dict[str, Any]]:
  """Returns the config of a checkpoint and everything stored with it.

  Raises:
    UserError: if it has an unknown format or cannot be read.
  """
  path = folder(workdir) / str(step) / 'run'
  try:
    stored = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(paths.plain(path))
  except (ValueError, OSError) as error:
    raise UserError(f'{path}: not a valid description of a run: {error}') from error
  found = stored.get('format') if isinstance(stored, dict) else None
  if isinstance(found, int) and found > FORMAT:
    raise UserError(newer(path, 'checkpoint format', FORMAT, found))
  if found not in _READ:
    raise UserError(f'{path}: expected a checkpoint of format {FORMAT}, found {found}')
  missing = sorted({'config', 'gin', 'data_fingerprint', 'vocabulary'} - stored.keys())
  if missing:
    raise UserError(f'{path}: the field {missing[0]} is missing')
  try:
    return from_dict(stored['config']), stored | {'gin': migrations.gin(stored['gin'])}
  except UserError as error:
    raise UserError(f'{path}: {error}') from error


def stored_gin(workdir: Path) -> str | None:
  """Returns the gin text of a run, which is the same in all its checkpoints; None if it cannot be read."""
  failure = None
  for step in steps(workdir):
    try:
      return read_run(workdir, step)[1]['gin']
    except UserError as error:
      failure = failure or error
  if failure is not None:
    raise failure
  return None


class _Manager(ocp.CheckpointManager):
  """Keeps orbax from asking JAX about preemption by step, since the loop also asks and counts differently."""

  def reached_preemption(self, step: int) -> bool:
    return False


class Checkpoints:
  """Saves a run's state asynchronously and restores it."""

  def __init__(self, directory: Path, keep: int | None):
    """Keeps the `keep` newest steps in `directory`; None keeps all."""
    self._directory = Path(directory).absolute()
    paths.make_folder(self._directory)
    self._saving = 0
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      create=True,
      cleanup_tmp_directories=True,
      # One process calls this after all have written and before the folder gets its final name.
      async_options=ocp.options.AsyncOptions(post_finalization_callback=self._write_manifest),
      multiprocessing_options=ocp.options.MultiprocessingOptions(
        barrier_sync_key_prefix=urllib.parse.quote(os.fsencode(self._directory))
      ),
    )
    self._manager = _Manager(paths.plain(self._directory), options=options, item_names=('state', 'run'))

  def save(self, step: int, state: State, run: dict[str, Any]) -> None:
    """Starts writing a step; the state may be used and donated as soon as this returns.

    Raises:
      UnwritableError: if the previous step could not be written; every method that waits raises this.
    """
    self.wait()
    self._saving = step
    piecewise = jax.tree.map(
      lambda x: ocp.SaveArgs(chunk_byte_size=_PIECE_BYTES, shard_axes=(0,) if x.ndim > 1 else ()), state
    )
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(state, save_args=piecewise), run=ocp.args.JsonSave({'format': FORMAT} | run)
    )
    with self._writing():
      self._manager.save(step, args=items, force=True)

  def restore(self, step: int, abstract: State) -> State:
    """Returns the state of a step, placed on devices as `abstract` specifies.

    Raises:
      UserError: if names, shapes or types differ from `abstract`, or the files cannot be read.
    """
    self.wait()
    path = self._directory / str(step) / 'state'
    _check(path, _by_name(abstract), _by_name(_stored_shapes(path)))
    try:
      return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))).state
    except (ValueError, KeyError) as error:
      raise UserError(f'{path}: cannot restore the state of this run: {first_line(error)}') from error

  def has(self, step: int) -> bool:
    """Whether a step is saved or being written."""
    return step in self._manager.all_steps()

  def keep_only(self, step: int) -> None:
    """Waits for writes and removes all other steps."""
    self.wait()
    for other in set(self._manager.all_steps()) - {step}:
      self._manager.delete(other)

  def wait(self) -> None:
    """Waits until all writes are complete."""
    with self._writing():
      self._manager.wait_until_finished()

  def reload(self) -> None:
    """Rereads the folder after steps were set aside."""
    self._manager.reload()

  def close(self) -> None:
    """Waits for writes and closes the folder."""
    with self._writing():
      self._manager.close()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Raises UnwritableError on a full disk, and removes the incomplete step."""
    try:
      with writing(self._directory):
        yield
    except UnwritableError:
      for path in self._unfinished():
        shutil.rmtree(path, ignore_errors=True)
      raise

  def _unfinished(self) -> list[Path]:
    return [path for path in self._directory.glob(f'{self._saving}.*tmp*') if path.is_dir()]

  def _write_manifest(self) -> None:
    unfinished = self._unfinished()
    write_manifest(unfinished[0] if unfinished else self._directory / str(self._saving))


def restore_params(workdir: Path, step: int, run: RunConfig) -> Params:
  """Returns only the parameters, on this machine's default device.

  Raises:
    UserError: if names, shapes or types differ from the run's model, or the files cannot be read.
  """
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  check_params(workdir, step, run)
  wanted = flatten(split_module(abstract_model(run.model))[1])
  placed = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for name, x in wanted.items()}
  return unflatten(restore_named(workdir, step, placed))


def check_params(workdir: Path, step: int, run: RunConfig) -> None:
  """Compares the names, shapes and types of the stored parameters with the run's model.

  Raises:
    UserError: if they differ or cannot be read.
  """
  wanted = flatten(split_module(abstract_model(run.model))[1])
  _check(folder(workdir) / str(step) / 'state', wanted, stored_params(workdir, step))


def stored_params(workdir: Path, step: int) -> dict[str, Any]:
  """Returns the shapes and types of a checkpoint's parameters, by name."""
  return flatten(_stored_shapes(folder(workdir) / str(step) / 'state').get('params', {}))


def restore_named(workdir: Path, step: int, abstract: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
  """Reads only the named parameters of a checkpoint, placed on devices as `abstract` specifies.

  Raises:
    UserError: if the files cannot be read.
  """
  path = folder(workdir) / str(step) / 'state'
  target = {'params': unflatten(abstract)}
  restore_args = ocp.checkpoint_utils.construct_restore_args(target)
  try:
    restored = ocp.PyTreeCheckpointer().restore(
      paths.plain(path), args=ocp.args.PyTreeRestore(target, restore_args=restore_args, partial_restore=True)
    )
  except (ValueError, KeyError) as error:
    raise UserError(f'{path}: cannot read the parameters of this run: {first_line(error)}') from error
  return flatten(restored['params'])


def read_layer(workdir: Path, step: int, name: str, layer: int | None) -> np.ndarray:
  """Reads one layer of a stacked parameter, or all of it if `layer` is None; keeps nothing else in memory.

  Raises:
    UserError: if the files cannot be read.
  """
  path = folder(workdir) / str(step) / 'state'
  files = {'driver': 'file', 'path': f'{paths.plain(path)}/'}
  place = {'driver': 'ocdbt', 'base': files, 'path': f'params.{name}/'}
  try:
    array = tensorstore.open({'driver': 'zarr', 'kvstore': place}, open=True, read=True).result()
    return np.asarray((array if layer is None else array[layer]).read().result())
  except (ValueError, OSError) as error:
    raise UserError(f'{path}: cannot read the parameter {name}: {first_line(error)}') from error


def _check(path: Path, wanted: dict[str, Any], stored: dict[str, Any]) -> None:
  for name, expected in wanted.items():
    if describe(stored.get(name)) != describe(expected):
      raise UserError(f'{path}: expected {name} of {describe(expected)}, found {describe(stored.get(name))}')
  for name in stored:
    if name not in wanted:
      raise UserError(f'{path}: the model has no parameter {name}, found {describe(stored[name])}')


def _stored_shapes(path: Path) -> dict[str, Any]:
  try:
    return ocp.PyTreeCheckpointer().metadata(paths.plain(path)).item_metadata.tree
  except (ValueError, KeyError, OSError, AttributeError) as error:
    raise UserError(f'{path}: cannot read the checkpoint: {first_line(error)}') from error


def _by_name(tree: Any) -> dict[str, Any]:
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path, simple=True, separator='.'): leaf for path, leaf in leaves}
