"""Checks and prepares everything before a run starts."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from terraformer.config import RunConfig, UserError, to_dict
from terraformer.config.words import flag
from terraformer.data import report
from terraformer.data.batches import Prepared, open_prepared
from terraformer.data.child import ensure_prepared
from terraformer.data.prepare import is_prepared
from terraformer.files import lock, write_whole
from terraformer.training import checkpoint, hosts, same_run
from terraformer.training.run_checkpoints import find_checkpoint


@dataclasses.dataclass(frozen=True)
class Start:
  """The starting point of a new or resumed run.

  Attributes:
    step: step of the checkpoint to resume from; 0 for none.
    data: the training data.
    permanent: the folder of permanent checkpoints, if any.
    description: the description of the run in each checkpoint.
    skipped: numbers of the skipped batches.
    recent_losses: losses of earlier steps, for `divergence.Guard`.
  """

  step: int
  data: Prepared
  permanent: Path
  description: dict[str, Any]
  skipped: list[int]
  recent_losses: list[float]


def start(run: RunConfig, workdir: Path, gin_text: str, show_progress: bool) -> Start:
  """Finds the starting point, opens the data, and checks that everything fits together.

  Raises:
    UserError: if the data do not fit the model, or a folder contains a run of another configuration.
  """
  newest = find_checkpoint(workdir, run.train.checkpoints.older_if_damaged)
  data = open_data(run, show_progress)
  stored: dict[str, Any] = {}
  if newest:
    stored_run, stored = checkpoint.read_run(workdir, newest)
    same_run.require_to_resume(workdir, stored_run, run, stored, data)
  permanent = Path(run.train.checkpoints.permanent_directory or workdir / 'permanent')
  require_own(permanent, run, data)
  description = describe_run(run, data, gin_text)
  if hosts.is_main():
    keep_vocabulary(workdir / 'vocabulary.model', data.tokenizer.model_bytes)
  return Start(newest, data, permanent, description, list(stored.get('skipped', [])), stored.get('recent_losses', []))


def open_data(run: RunConfig, show_progress: bool) -> Prepared:
  """Opens the prepared data; prepares missing data if there is only one process.

  Raises:
    UserError: if the data are missing or damaged, or do not fit the model or the run's settings.
  """
  run.require_source()
  if not hosts.are_several():
    is_new = not is_prepared(run.data)
    manifest = ensure_prepared(run.data, show_progress)
    for line in report.lines(manifest) if is_new else ():
      print(line, file=sys.stderr)
  data = open_prepared(run.data)
  if data.tokenizer.size > run.model.vocab_size:
    raise UserError(
      f'{type(run.model).__name__}.vocab_size: expected at least the vocabulary of the data ({data.tokenizer.size}), '
      f'found {run.model.vocab_size}'
    )
  if (run.train.eval_every or run.train.sample_every) and not data.size('validation'):
    raise UserError(
      f'task {run.data.task}: there are no validation examples for evaluation and samples; turn these off with '
      f'{flag("TrainConfig.eval_every", "0")} and {flag("TrainConfig.sample_every", "0")}'
    )
  return data


def require_own(folder: Path, run: RunConfig, data: Prepared) -> None:
  """Raises UserError if a folder of permanent checkpoints contains another run's, which could pass for this run's."""
  for step in checkpoint.steps(folder)[:1]:
    stored_run, stored = checkpoint.read_run(folder, step)
    same_run.require_to_resume(folder, stored_run, run, stored, data)


def describe_run(run: RunConfig, data: Prepared, gin_text: str) -> dict[str, Any]:
  """Returns the description of a run that its checkpoints store."""
  return {
    'config': to_dict(run),
    'gin': gin_text,
    'data_fingerprint': data.fingerprint,
    'corpus_fingerprint': data.manifest.corpus_fingerprint,
    'vocabulary': {'sentinels': data.tokenizer.sentinels, 'fingerprint': data.tokenizer.fingerprint},
  }


def keep_vocabulary(path: Path, model_bytes: bytes) -> None:
  """Writes the vocabulary unless it exists."""
  if not path.exists() or path.read_bytes() != model_bytes:
    write_whole(path, model_bytes)


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
  """Locks a folder for one run, because a second run would delete checkpoints that the first is writing.

  If a run has several processes, the main one holds the lock.
  """
  if not hosts.is_main():
    yield
    return
  taken = UserError(f'{workdir}: another process is training in this folder; wait for it or choose another folder')
  with lock(workdir / '.lock', taken):
    yield
