"""Exports a checkpoint of a run as a bundle."""

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
  """Writes a checkpoint of a run as a bundle, with one layer's tensor at a time in memory.

  Args:
    workdir: the run's folder.
    output: the bundle's folder; an existing bundle is replaced.
    dtype: type of the weights: float32, bfloat16 or int8.
    show_progress: whether to show a progress bar.
    best: whether to export the best checkpoint instead of the newest.

  Returns:
    The step that was exported.

  Raises:
    UserError: if there is no complete checkpoint, its vocabulary is missing, or `output` holds anything but a bundle.
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
  """Returns the tokenizer that a run was trained with.

  Raises:
    UserError: if its vocabulary is missing, or is not the one of the run.
  """
  path = Path(workdir) / 'vocabulary.model'
  tokenizer = Tokenizer.open(path, stored['vocabulary']['sentinels'])
  if tokenizer.fingerprint != stored['vocabulary']['fingerprint']:
    raise UserError(f'{path} is not the vocabulary that the run was trained with; restore it')
  return tokenizer
