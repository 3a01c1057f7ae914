"""Keeps the checkpoint with the lowest validation loss in `best`, next to the newest checkpoints."""

import math
import sys
from pathlib import Path
from typing import Any

from terraformer.config import UserError
from terraformer.config.words import flag
from terraformer.training import checkpoint, hosts
from terraformer.training.manifest import DamagedError, verify
from terraformer.training.state import State


def folder(workdir: Path) -> Path:
  """Returns the folder of a run's best checkpoint, which any function that reads checkpoints accepts."""
  return Path(workdir) / 'best'


def best_step(workdir: Path) -> int | None:
  """Returns the step with the lowest validation loss, or None if none is kept. Reports and skips a damaged one."""
  losses = {}
  for step in checkpoint.steps(folder(workdir)):
    try:
      verify(checkpoint.folder(folder(workdir)) / str(step))
    except DamagedError as error:
      print(f'{error}; continuing without it', file=sys.stderr)
    else:
      losses[step] = validation_of(workdir, step)['loss']
  return min(losses, key=losses.__getitem__, default=None)


def require_best(workdir: Path) -> int:
  """Returns the step with the lowest validation loss.

  Raises:
    UserError: if there is none.
  """
  step = best_step(workdir)
  if step is None:
    raise UserError(
      f'{workdir} has no best checkpoint; leave out --best to use the newest, or train more steps with '
      + flag('CheckpointConfig.best', 'True')
    )
  return step


def validation_of(workdir: Path, step: int) -> dict[str, float]:
  """Returns the evaluation metrics of a kept step."""
  return checkpoint.read_run(folder(workdir), step)[1]['validation']


def chosen(workdir: Path, best: bool) -> tuple[Path, int]:
  """Returns the folder and the step of a run's newest or best checkpoint.

  Raises:
    UserError: if there is none.
  """
  return (folder(workdir), require_best(workdir)) if best else (Path(workdir), checkpoint.require_step(workdir))


class Best:
  """Keeps the best checkpoint. Its state is in the folder, so a resumed run knows the best so far."""

  def __init__(self, workdir: Path):
    self._step = hosts.broadcast_from_main(lambda: best_step(workdir) or 0)
    self._loss = validation_of(workdir, self._step)['loss'] if self._step else math.inf
    self._checkpoints = checkpoint.Checkpoints(folder(workdir), None)

  def save_if_best(self, step: int, state: State, description: dict[str, Any], metrics: dict[str, float]) -> None:
    """Keeps the state if its validation loss is the lowest so far; removes the previous one after this is on disk."""
    if not metrics['loss'] < self._loss or self._checkpoints.has(step):
      return
    self._checkpoints.keep_only(self._step)
    self._step, self._loss = step, metrics['loss']
    self._checkpoints.save(step, state, description | {'validation': metrics})

  def close(self) -> None:
    """Waits for writes and leaves one step."""
    self._checkpoints.keep_only(self._step)
    self._checkpoints.close()
