"""Checks that a configuration and its data match a run, for resuming, evaluation or export."""

from pathlib import Path
from typing import Any

from terraformer.config import RunConfig, UserError, differences
from terraformer.config.words import flag
from terraformer.data.batches import Prepared

# Settings that may change on resume: the length of the run, its logging, checkpointing and failure settings, its paths,
# and its mesh (which changes the order of sums, so the last bits).
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
# An evaluation does not train, and the data are compared by fingerprint.
_FREE_WHEN_EVALUATED = ('train.', 'data.')


def require_to_resume(
  folder: Path, stored_run: RunConfig, run: RunConfig, stored: dict[str, Any], data: Prepared
) -> None:
  """Raises UserError if a run would resume with another configuration or other data.

  Args:
    folder: the folder of the run, for the message.
    stored_run: the configuration in its checkpoint.
    run: the given configuration.
    stored: the rest of the checkpoint's description (`checkpoint.read_run`).
    data: the given data.
  """
  if not stored['data_fingerprint']:
    raise UserError(
      f'{folder}: the parameters of this run were imported, and nothing in the folder can be resumed; train in another '
      f'folder with {flag("TrainConfig.init_from", "@config.InitFromConfig()")} and '
      + flag('InitFromConfig.workdir', repr(str(folder)))
    )
  located = tuple(f'data.source.{name}:' for name in run.data.source.located_by)
  if change := _first_change(stored_run, run, (*_FREE_WHEN_RESUMED, *located)):
    setting, old, new = change
    raise UserError(
      f'{folder} was started with {setting} = {old}, not {new}; leave out the change or give a new --workdir'
    )
  if not _has_data(stored, data):
    raise UserError(
      f'{folder}: expected the data of the run ({stored["data_fingerprint"][:12]}), found {data.fingerprint[:12]}'
    )


def require_to_evaluate(
  folder: Path, stored_run: RunConfig, run: RunConfig, stored: dict[str, Any], data: Prepared
) -> None:
  """Raises UserError if a run would be evaluated as another model or on other data; arguments as above."""
  if change := _first_change(stored_run, run, _FREE_WHEN_EVALUATED):
    setting, old, new = change
    raise UserError(f'{folder} was trained with {setting} = {old}, not {new}; leave out the change')
  if not stored['data_fingerprint']:  # of parameters that were imported, with any data of their vocabulary
    if stored['vocabulary']['fingerprint'] != data.tokenizer.fingerprint:
      raise UserError(
        f'{run.data.directory}: the data were prepared with another vocabulary than that of the run; prepare them with '
        + flag('TokenizerConfig.path', repr(str(Path(folder) / 'vocabulary.model')))
      )
  elif not _has_data(stored, data):
    raise UserError(
      f'{run.data.directory}: expected the data of the run ({stored["data_fingerprint"][:12]}), '
      f'found {data.fingerprint[:12]}'
    )


def require_to_export(folder: str, stored_run: RunConfig, run: RunConfig) -> None:
  """Raises UserError if a run would be exported with another configuration, which a bundle cannot store."""
  if change := _first_change(stored_run, run, ()):
    setting, old, new = change
    raise UserError(f'{folder} was trained with {setting} = {old}, not {new}; leave out the change')


def _first_change(stored: RunConfig, given: RunConfig, free: tuple[str, ...]) -> tuple[str, str, str] | None:
  return next((change for change in differences(stored, given) if not f'{change[0]}:'.startswith(free)), None)


def _has_data(stored: dict[str, Any], data: Prepared) -> bool:
  return stored['data_fingerprint'] == data.fingerprint
