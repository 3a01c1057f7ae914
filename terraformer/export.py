"""From a run's checkpoint to a bundle."""

from pathlib import Path

import numpy as np

from terraformer.config import UserError
from terraformer.data.vocabulary import Vocabulary
from terraformer.decode.bundle import Content, unrolled_facts, write_bundle
from terraformer.models.parameters import stacked_name
from terraformer.train import checkpoint
from terraformer.train.best import chosen


def export(workdir: Path, output: Path, bfloat16: bool = False, progress: bool = False, best: bool = False) -> int:
  """Writes a checkpoint of a run as a bundle, a layer's tensor at a time.

  Args:
    workdir: the run.
    output: the bundle's folder; a bundle that is there is replaced.
    bfloat16: whether tensors that are read row by row are stored in half the space.
    progress: whether to show a progress bar.
    best: whether the best checkpoint is taken in the place of the newest.

  Returns:
    The step that was exported.

  Raises:
    UserError: if there is no complete checkpoint, its vocabulary is missing, or `output` holds something else.
  """
  place, step = chosen(workdir, best)
  run, stored = checkpoint.read_run(place, step)
  vocabulary = run_vocabulary(workdir, stored)
  checkpoint.check_params(place, step, run)
  content = Content(
    model=run.model,
    vocabulary=vocabulary,
    inputs_length=run.data.inputs_length,
    targets_length=run.data.targets_length,
    origin={'step': step, 'gin': stored['gin'], 'data_fingerprint': stored['data_fingerprint']},
    bfloat16=bfloat16,
  )
  facts = unrolled_facts(run.model)

  def read(name: str) -> np.ndarray:
    return checkpoint.read_layer(place, step, *stacked_name(name, facts[name]))

  write_bundle(output, content, read, progress)
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
