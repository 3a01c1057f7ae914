"""Train, evaluate and export from Python: the commands of these names, as functions.

They report what is wrong as exceptions and never end the process. Progress goes to the standard error.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from terraformer.config import DecodeConfig, RunConfig
from terraformer.eval import evaluate as evaluation
from terraformer.exporting import export as export_run
from terraformer.gin_text import as_gin
from terraformer.training import loop

_GREEDY = DecodeConfig()


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
  """Hides what libraries log about checkpoints; an error that they log is raised as well."""
  logger = logging.getLogger('absl')
  before = logger.level
  logger.setLevel(logging.CRITICAL)
  try:
    yield
  finally:
    logger.setLevel(before)


@_without_notices()
def train(config: RunConfig, workdir: str | os.PathLike[str], *, show_progress: bool = True) -> loop.TrainResult:
  """Trains a model to step `config.train.steps`, resuming from the newest checkpoint of `workdir` if it has one.

  Data that have not been prepared yet are prepared first, by a process of their own. Interrupting it (Ctrl-C, or the
  notebook's stop button) saves a checkpoint and returns; the same call resumes.

  Args:
    config: the model, its data and its training, from `load_config` or built of the config classes.
    workdir: the folder of the run, which takes checkpoints, metrics, TensorBoard events, plots and a summary.
    show_progress: whether to show a progress bar, and samples of what the model writes.

  Returns:
    The step that was reached, the metrics of the last evaluation, and where the time went.

  Raises:
    UserError: if the data do not fit the model, or the folder holds a run of another configuration.
    training.divergence.DivergedError: if the loss is not finite or jumps; the newest checkpoint is from before that.
    files.UnwritableError: if the disk is full.
  """
  return loop.train(config, Path(workdir), gin_text=as_gin(config), show_progress=show_progress)


@_without_notices()
def evaluate(
  workdir: str | os.PathLike[str],
  *,
  split: Literal['test', 'validation'] = 'test',
  limit: int = 256,
  decode: DecodeConfig | None = _GREEDY,
  batch_size: int | None = None,
  best: bool = False,
  show_progress: bool = True,
) -> evaluation.Evaluation:
  """Scores the newest checkpoint of a run on held-out examples.

  The texts that the model writes are kept in `workdir`; a call that was interrupted resumes behind the last of them.

  Args:
    workdir: the folder of the run.
    split: of its data.
    limit: the most examples to read, which are always the same ones.
    decode: how texts are written; None computes the perplexity alone, which is much faster.
    batch_size: examples that are decoded side by side; None for what is likely to fit into the memory.
    best: takes the best checkpoint instead of the newest (`CheckpointConfig.best`).
    show_progress: whether to show progress bars.

  Returns:
    Perplexity, ROUGE, exact match and every text, with their baselines.

  Raises:
    UserError: if there is no complete checkpoint, the prepared data are missing or another run's, or the split is
      empty.
  """
  return evaluation.evaluate(
    Path(workdir), split, limit, show_progress=show_progress, decode=decode, batch_size=batch_size, best=best
  )


@_without_notices()
def export(
  workdir: str | os.PathLike[str],
  output: str | os.PathLike[str],
  *,
  dtype: Literal['float32', 'bfloat16', 'int8'] = 'float32',
  best: bool = False,
  show_progress: bool = False,
) -> int:
  """Writes the newest checkpoint of a run as a bundle, the folder that `Decoder.open` reads.

  Args:
    workdir: the folder of the run.
    output: the bundle's folder; a bundle that is there is replaced.
    dtype: of the weights: bfloat16 takes half the space and time of float32, int8 a quarter.
    best: takes the best checkpoint instead of the newest (`CheckpointConfig.best`).
    show_progress: whether to show a progress bar.

  Returns:
    The step of the checkpoint.

  Raises:
    UserError: if there is no complete checkpoint, or `output` holds something else.
  """
  return export_run(Path(workdir), Path(output), dtype, show_progress, best)
