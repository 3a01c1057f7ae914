"""Functions that train, evaluate, export and import like the commands of the same names.

They raise exceptions for errors and never end the process. They print progress to the standard error.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from terraformer.config import DecodeConfig, RunConfig, UserError
from terraformer.eval import evaluate as evaluation
from terraformer.exporting import export as export_run
from terraformer.gin_text import as_gin
from terraformer.importing import Imported, import_bundle, import_run
from terraformer.training import loop

_GREEDY = DecodeConfig()


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
  """Hides the log messages of libraries about checkpoints; the libraries also raise the errors that they log."""
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

  A separate process first prepares the data if they are not prepared yet. An interruption (Ctrl-C, or the notebook's
  stop button) saves a checkpoint and returns; the same call resumes.

  Args:
    config: model, data and training, from `load_config` or built from the config classes.
    workdir: the folder of the run, for checkpoints, metrics, TensorBoard events, plots and a summary.
    show_progress: whether to show a progress bar, and samples of the model's text.

  Returns:
    The step that was reached, the metrics of the last evaluation, and the time spent on each activity.

  Raises:
    UserError: if the data do not fit the model, or the folder holds a run of another configuration.
    training.divergence.DivergedError: if the loss is not finite or jumps; the newest checkpoint is older than that.
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

  The model's texts are stored in `workdir`; after an interruption, the same call resumes after the last of them.

  Args:
    workdir: the folder of the run.
    split: split of the run's data.
    limit: maximum number of examples, which are always the same ones.
    decode: how texts are generated; None computes only the perplexity, which is much faster.
    batch_size: number of examples to decode together; None for a number that is likely to fit into memory.
    best: whether to evaluate the best checkpoint instead of the newest (`CheckpointConfig.best`).
    show_progress: whether to show progress bars.

  Returns:
    Perplexity, ROUGE, exact match and all texts, with baselines.

  Raises:
    UserError: if there is no complete checkpoint, the prepared data are missing or not those of the run, or the split
      is empty.
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
  """Writes the newest checkpoint of a run as a bundle, a folder that `Decoder.open` reads.

  Args:
    workdir: the folder of the run.
    output: the bundle's folder; an existing bundle is replaced.
    dtype: type of the weights: bfloat16 takes half the space and time of float32, int8 a quarter.
    best: whether to export the best checkpoint instead of the newest (`CheckpointConfig.best`).
    show_progress: whether to show a progress bar.

  Returns:
    The step of the checkpoint.

  Raises:
    UserError: if there is no complete checkpoint, or `output` holds anything but a bundle.
  """
  return export_run(Path(workdir), Path(output), dtype, show_progress, best)


@_without_notices()
def import_checkpoint(
  checkpoint: str | os.PathLike[str],
  *,
  output: str | os.PathLike[str] | None = None,
  workdir: str | os.PathLike[str] | None = None,
  config: str | os.PathLike[str] | None = None,
  vocabulary: str | os.PathLike[str] | None = None,
  dtype: Literal['float32', 'bfloat16', 'int8'] | None = None,
  show_progress: bool = False,
) -> Imported:
  """Converts a checkpoint of trax, the library of the paper's authors, into a bundle or a run.

  Args:
    checkpoint: its main file, `BASE.pkl.gz`, or a folder with one. This, `config` and `vocabulary` may be addresses
      (`gs://`, `https://`), from which files are downloaded once.
    output: the folder of the bundle to write; an existing bundle is replaced. Give this or `workdir`.
    workdir: the folder of the run to write, new or empty; it is evaluated, exported, and other runs begin with it.
    config: the checkpoint's `config.gin`; None for the one beside it.
    vocabulary: a sentencepiece model, or a subword file of tensor2tensor; None for a model that reads and writes ids.
    dtype: type of the weights of a bundle, None for float32; the parameters of a run are float32.
    show_progress: whether to show progress bars.

  Returns:
    The model's configuration, the checkpoint's step, and what became of each entry.

  Raises:
    UserError: if a file is missing, damaged, or names anything that a checkpoint does not need, if this library cannot
      express the model, or if the folder to write holds something else. Nothing is written then.
  """
  if (output is None) == (workdir is None):
    raise UserError('give either output, for a bundle, or workdir, for a run')
  if dtype is not None and workdir is not None:
    raise UserError('dtype is for a bundle; the parameters of a run are float32')
  if output is not None:
    return import_bundle(
      checkpoint,
      output,
      config=config,
      vocabulary=vocabulary,
      dtype=dtype or 'float32',
      show_progress=show_progress,
    )
  assert workdir is not None
  return import_run(checkpoint, workdir, config=config, vocabulary=vocabulary, show_progress=show_progress)
