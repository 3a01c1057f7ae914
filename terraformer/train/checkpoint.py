"""Checkpoints by orbax: parameters, optimiser state, step, and the config that made them.

A run's folder holds `checkpoints/STEP/{state,run}`; `run` is JSON with the config, its gin text, and the fingerprints
of data and vocabulary. `vocabulary.model` beside it makes the folder all that decoding needs.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from terraformer.config import RunConfig, UserError, from_dict
from terraformer.models.make import abstract_model
from terraformer.models.parameters import Params, describe, flatten, split
from terraformer.train.state import State

FORMAT = 1


def folder(workdir: Path) -> Path:
  """Where a run's checkpoints are."""
  return Path(workdir).absolute() / 'checkpoints'


def latest_step(workdir: Path) -> int | None:
  """The newest step that was saved, None where there is none.

  A folder that orbax had not finished when it was killed has a temporary name and does not count.

  Raises:
    UserError: if a step's folder is incomplete.
  """
  steps = [path for path in folder(workdir).glob('*') if path.is_dir() and path.name.isdigit()]
  if not steps:
    return None
  newest = max(steps, key=lambda path: int(path.name))
  for part in ('_CHECKPOINT_METADATA', 'state/_METADATA', 'state/manifest.ocdbt', 'run/metadata'):
    if not (newest / part).exists():
      raise UserError(
        f'{newest}: expected a complete checkpoint, found no {part}; remove this folder to use an older one'
      )
  return int(newest.name)


def require_step(workdir: Path) -> int:
  """The newest step.

  Raises:
    UserError: if there is no checkpoint, or the newest is incomplete.
  """
  step = latest_step(workdir)
  if step is None:
    raise UserError(f'{workdir}: expected a run with at least one checkpoint, found none')
  return step


def read_run(workdir: Path, step: int) -> tuple[RunConfig, dict[str, Any]]:
  """The config of a checkpoint, and everything that was stored with it.

  Raises:
    UserError: if it is of another format, or cannot be read.
  """
  path = folder(workdir) / str(step) / 'run'
  try:
    stored = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(path)
  except (ValueError, OSError) as error:
    raise UserError(f'{path}: expected the JSON of a run, found {error}') from error
  found = stored.get('format') if isinstance(stored, dict) else None
  if found != FORMAT:
    raise UserError(f'{path}: expected a checkpoint of format {FORMAT}, found {found}')
  missing = sorted({'config', 'gin', 'data_fingerprint', 'vocabulary'} - stored.keys())
  if missing:
    raise UserError(f'{path}: expected the field {missing[0]}, found none')
  try:
    return from_dict(stored['config']), stored
  except UserError as error:
    raise UserError(f'{path}: {error}') from error


class Checkpoints:
  """Saves a run's state, asynchronously, and restores it."""

  def __init__(self, workdir: Path, keep: int):
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, cleanup_tmp_directories=True)
    self._manager = ocp.CheckpointManager(folder(workdir), options=options, item_names=('state', 'run'))

  def save(self, step: int, state: State, run: dict[str, Any]) -> None:
    """Starts to write a step; the state may be used, and donated, as soon as this returns."""
    items = ocp.args.Composite(state=ocp.args.StandardSave(state), run=ocp.args.JsonSave({'format': FORMAT} | run))
    self._manager.save(step, args=items, force=True)

  def restore(self, step: int, abstract: State) -> State:
    """The state of a step, placed as `abstract` says.

    Raises:
      UserError: if names, shapes or types are not those of `abstract`, or the files cannot be read.
    """
    path = self._manager.directory / str(step) / 'state'
    try:
      restored = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))).state
    except (ValueError, KeyError, OSError) as error:
      raise UserError(f'{path}: expected the state of this run, found {_first_line(error)}') from error
    return restored

  def close(self) -> None:
    """Waits, and lets go of the folder."""
    self._manager.close()


def restore_params(workdir: Path, step: int, run: RunConfig) -> Params:
  """The parameters alone, on this machine's default device.

  Raises:
    UserError: if names, shapes or types are not those of the run's model, or the files cannot be read.
  """
  path = folder(workdir) / str(step) / 'state'
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), split(abstract_model(run.model))[1]
  )
  _check_shapes(path, {'params': abstract})
  target = {'params': abstract}
  try:
    return ocp.PyTreeCheckpointer().restore(
      path,
      args=ocp.args.PyTreeRestore(
        target, restore_args=ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True
      ),
    )['params']
  except (ValueError, KeyError, OSError) as error:
    raise UserError(f'{path}: expected the parameters of this run, found {_first_line(error)}') from error


def _check_shapes(path: Path, target: dict[str, Any]) -> None:
  try:
    stored = ocp.PyTreeCheckpointer().metadata(path).item_metadata.tree
  except (ValueError, KeyError, OSError) as error:
    raise UserError(f'{path}: expected a readable checkpoint, found {_first_line(error)}') from error
  stored = flatten({'params': stored.get('params', {})})
  for name, expected in flatten(target).items():
    wanted, found = describe(expected), describe(stored.get(name))
    if found != wanted:
      raise UserError(f'{path}: expected {name} of {wanted}, found {found}')


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0]
