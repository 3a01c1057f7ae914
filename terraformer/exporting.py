"""From a run's checkpoint to a bundle."""

from pathlib import Path

import numpy as np

from terraformer.config import UserError
from terraformer.data.tokenizer import Tokenizer
from terraformer.decode.bundle import Content, write_bundle
from terraformer.decode.shapes import layerwise_facts
from terraformer.models.parameters import stacked_name
from terraformer.training import checkpoint
from terraformer.training.best import chosen


def export(workdir: Path, output: Path, dtype: str = 'float32', show_progress: bool = False, best: bool = False) -> int:
  """Writes a checkpoint of a run as a bundle, a layer's tensor at a time.

  Args:
    workdir: the run.
    output: the bundle's folder; a bundle that is there is replaced.
    dtype: of the weights: float32, bfloat16 or int8.
    progress: whether to show a progress bar.
    best: whether the best checkpoint is taken in the place of the newest.

  Returns:
    The step that was exported.

  Raises:
    UserError: if there is no complete checkpoint, its vocabulary is missing, or `output` holds something else.
  """
  folder, step = chosen(workdir, best)
  run, stored = checkpoint.read_run(folder, step)
  tokenizer = run_vocabulary(workdir, stored)
  checkpoint.check_params(folder, step, run)
  content = Content(
    model=run.model,
    tokenizer=tokenizer,
    inputs_length=run.data.inputs_length,
    targets_length=run.data.targets_length,
    origin={'step': step, 'gin': stored['gin'], 'data_fingerprint': stored['data_fingerprint']},
    dtype=dtype,
    inputs_eos=run.data.inputs_eos,
  )
  facts = layerwise_facts(run.model)

  def read(name: str) -> np.ndarray:
    return checkpoint.read_layer(folder, step, *stacked_name(name, facts[name]))

  write_bundle(output, content, read, show_progress)
  return step


def run_vocabulary(workdir: Path, stored: dict) -> Tokenizer:
  """The vocabulary that a run was trained with.

  Raises:
    UserError: if it is missing or another.
  """
  path = Path(workdir) / 'vocabulary.model'
  tokenizer = Tokenizer.open(path, stored['vocabulary']['sentinels'])
  if tokenizer.fingerprint != stored['vocabulary']['fingerprint']:
    raise UserError(f'{path}: expected the vocabulary that the run was trained with, found another')
  return tokenizer
