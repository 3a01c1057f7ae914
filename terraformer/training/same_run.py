"""Whether a configuration and its data are those of a run, which depends on what is to be done with the run."""

from pathlib import Path
from typing import Any

from terraformer.config import RunConfig, UserError, differences
from terraformer.data.batches import Prepared

# What may be another when a run goes on: how long it is, what is reported, kept and endured, where things are, and how
# many devices share the work (which changes the order of sums, so the last bits).
_FREE_WHEN_RESUMED = (
  'train.steps',
  'train.log_every',
  'train.eval_every',
  'train.eval_batches',
  'train.sample_every',
  'train.diagnostics_every',
  'train.checkpoints.',
  'train.divergence.',
  'train.watchdog.',
  'train.mesh.',
  'data.directory',
  'data.tokenizer.path',
)
# An evaluation trains nothing, and the data are compared by their fingerprint.
_FREE_WHEN_EVALUATED = ('train.', 'data.')


def require_to_resume(
  folder: Path, stored_run: RunConfig, run: RunConfig, stored: dict[str, Any], data: Prepared
) -> None:
  """Raises UserError where the run of a folder is to go on with another configuration or other data.

  Args:
    place: the folder, for the message.
    stored_run: the configuration of its checkpoint.
    run: the one that is given.
    stored: what else the checkpoint tells (`checkpoint.read_run`).
    data: those that are given.
  """
  located = tuple(f'data.source.{name}:' for name in run.data.source.located_by)
  if change := _first_change(stored_run, run, (*_FREE_WHEN_RESUMED, *located)):
    raise UserError(f'{folder}: expected the configuration of the run that it holds, found {change}')
  if not _has_data(stored, data):
    raise UserError(
      f'{folder}: expected the data that the run began with ({stored["data_fingerprint"][:12]}), '
      f'found others ({data.fingerprint[:12]})'
    )


def require_to_evaluate(
  folder: Path, stored_run: RunConfig, run: RunConfig, stored: dict[str, Any], data: Prepared
) -> None:
  """Raises UserError where a run is to be evaluated as another model or on other data; arguments as above."""
  if change := _first_change(stored_run, run, _FREE_WHEN_EVALUATED):
    raise UserError(f'{folder}: expected the model of the run, found {change.removeprefix("model.")}')
  if not _has_data(stored, data):
    raise UserError(f'{run.data.directory}: expected the data that the run was trained on, found others')


def require_to_export(folder: str, stored_run: RunConfig, run: RunConfig) -> None:
  """Raises UserError where a run is to be exported with another configuration, which a bundle could not keep."""
  if change := _first_change(stored_run, run, ()):
    raise UserError(f'{folder}: expected the configuration of the run, found {change}')


def _first_change(stored: RunConfig, given: RunConfig, free: tuple[str, ...]) -> str | None:
  return next((change for change in differences(stored, given) if not change.startswith(free)), None)


def _has_data(stored: dict[str, Any], data: Prepared) -> bool:
  return stored['data_fingerprint'] == data.fingerprint
