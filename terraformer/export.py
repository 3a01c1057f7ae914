"""From a run's checkpoint to a bundle."""

from pathlib import Path

from terraformer.config import UserError
from terraformer.data.vocabulary import Vocabulary
from terraformer.decode.bundle import write_bundle
from terraformer.train import checkpoint


def export(workdir: Path, output: Path) -> int:
  """Writes the newest checkpoint of a run as a bundle.

  Args:
    workdir: the run.
    output: the bundle's folder; a bundle that is there is replaced.

  Returns:
    The step that was exported.

  Raises:
    UserError: if there is no complete checkpoint, its vocabulary is missing, or `output` holds something else.
  """
  step = checkpoint.require_step(workdir)
  run, stored = checkpoint.read_run(workdir, step)
  vocabulary = run_vocabulary(workdir, stored)
  params = checkpoint.restore_params(workdir, step, run)
  origin = {'step': step, 'gin': stored['gin'], 'data_fingerprint': stored['data_fingerprint']}
  write_bundle(output, run.model, params, vocabulary, run.data.inputs_length, run.data.targets_length, origin)
  return step


def run_vocabulary(workdir: Path, stored: dict) -> Vocabulary:
  """The vocabulary that a run was trained with.

  Raises:
    UserError: if it is missing or another.
  """
  path = Path(workdir) / 'vocabulary.model'
  vocabulary = Vocabulary.open(path, stored['vocabulary']['sentinels'])
  if vocabulary.fingerprint != stored['vocabulary']['fingerprint']:
    raise UserError(f'{path}: expected the vocabulary that the run was trained with, found another')
  return vocabulary
