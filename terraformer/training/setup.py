"""What is checked and put in place before a run begins."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from terraformer.config import RunConfig, UserError, to_dict
from terraformer.data import report
from terraformer.data.batches import Prepared, open_prepared
from terraformer.data.child import ensure_prepared
from terraformer.data.prepare import is_prepared
from terraformer.files import lock, write_whole
from terraformer.training import checkpoint, hosts, same_run
from terraformer.training.run_checkpoints import find_checkpoint


@dataclasses.dataclass(frozen=True)
class Start:
  """With what a run begins, or goes on.

  Attributes:
    step: of the checkpoint that it goes on from; 0 for none.
    data: that it trains on.
    permanent: the folder of the checkpoints that it keeps for good, if any.
    description: what each of its checkpoints tells of it.
    skipped: numbers of the batches that are left out.
    recent_losses: of the steps before, as `divergence.Guard` has them.
  """

  step: int
  data: Prepared
  permanent: Path
  description: dict[str, Any]
  skipped: list[int]
  recent_losses: list[float]


def start(run: RunConfig, workdir: Path, gin_text: str, show_progress: bool) -> Start:
  """Finds where to begin, opens the data, and refuses what does not fit together.

  Raises:
    UserError: if the data do not fit the model, or a folder holds a run of another configuration.
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
  """The prepared data, prepared now where they are missing and one process is alone.

  Raises:
    UserError: if they are missing, damaged, or do not fit the model or what is asked of the run.
  """
  run.require_source()
  if not hosts.are_several():
    is_new = not is_prepared(run.data)
    manifest = ensure_prepared(run.data, show_progress)
    for line in report.skipped(manifest) if is_new else ():
      print(line, file=sys.stderr)
  data = open_prepared(run.data)
  if data.tokenizer.size > run.model.vocab_size:
    raise UserError(
      f'{type(run.model).__name__}.vocab_size: expected at least the vocabulary of the data ({data.tokenizer.size}), '
      f'found {run.model.vocab_size}'
    )
  if (run.train.eval_every or run.train.sample_every) and not data.size('validation'):
    raise UserError(
      f'task {run.data.task}: expected validation examples for evaluation and samples, found none; '
      'set TrainConfig.eval_every and sample_every to 0 to train without'
    )
  return data


def require_own(folder: Path, run: RunConfig, data: Prepared) -> None:
  """Raises UserError where a folder of permanent checkpoints holds another run's, which would pass for this one's."""
  for step in checkpoint.steps(folder)[:1]:
    stored_run, stored = checkpoint.read_run(folder, step)
    same_run.require_to_resume(folder, stored_run, run, stored, data)


def describe_run(run: RunConfig, data: Prepared, gin_text: str) -> dict[str, Any]:
  """What a checkpoint tells of the run that made it."""
  return {
    'config': to_dict(run),
    'gin': gin_text,
    'data_fingerprint': data.fingerprint,
    'corpus_fingerprint': data.manifest.corpus_fingerprint,
    'vocabulary': {'sentinels': data.tokenizer.sentinels, 'fingerprint': data.tokenizer.fingerprint},
  }


def keep_vocabulary(path: Path, model_bytes: bytes) -> None:
  """Writes the vocabulary unless it is there."""
  if not path.exists() or path.read_bytes() != model_bytes:
    write_whole(path, model_bytes)


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
  """One run a folder: a second one would clean away what the first is saving.

  Of several processes of one run the main one holds the lock.
  """
  if not hosts.is_main():
    yield
    return
  taken = UserError(f'{workdir}: expected to be the only process that trains here, found another at work')
  with lock(workdir / '.lock', taken):
    yield
