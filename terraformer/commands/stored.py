"""Reads the configuration of a run, for commands that use the run."""

from pathlib import Path

from terraformer.config import UserError


def stored_gin(workdir: str) -> str:
  """Returns the gin text of a run.

  Raises:
    UserError: if there is no run, or none of its checkpoints can be read.
  """
  from terraformer.training import checkpoint

  stored = checkpoint.stored_gin(Path(workdir))
  if stored is None:
    raise UserError(f'{workdir}: there is no checkpoint; give the folder of a run that has one')
  return stored
