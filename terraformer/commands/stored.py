"""The configuration that a run keeps, for the commands that look at what it has become."""

from pathlib import Path

from terraformer.config import UserError


def stored_gin(workdir: str) -> str:
  """The gin text of a run.

  Raises:
    UserError: if there is no run, or no checkpoint of it can be read.
  """
  from terraformer.training import checkpoint

  stored = checkpoint.stored_gin(Path(workdir))
  if stored is None:
    raise UserError(f'{workdir}: there is no checkpoint; give the folder of a run that has one')
  return stored
