"""Metrics: collected by clu on the device, written to TensorBoard and as JSON lines."""

import contextlib
import json
import math
import os
from pathlib import Path

import flax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from tensorboardX import summary

from terraformer.files import write_whole
from terraformer.paths import plain
from terraformer.training.events import Events

_BINS = 30  # as many as TensorBoard draws
_Loss = metrics.Average.from_output('loss_BxT')
_Accuracy = metrics.Average.from_output('correct_BxT')


def _of_step(name: str) -> type[metrics.LastValue]:
  """Returns a metric for a value of the whole step, which ignores the collection's token mask."""
  return metrics.LastValue.from_fun(lambda **outputs: {'value': jnp.asarray(outputs[name]), 'mask': None})


@flax.struct.dataclass
class EvalMetrics(metrics.Collection):
  """Means over real tokens of the values that `loss.token_losses` returns."""

  loss: _Loss
  accuracy: _Accuracy


@flax.struct.dataclass
class TrainMetrics(metrics.Collection):
  """The evaluation metrics and the step's own values; repeated here because clu ignores inherited fields."""

  loss: _Loss
  accuracy: _Accuracy
  gradient_norm: _of_step('gradient_norm')
  learning_rate: _of_step('learning_rate')


def summarize(collections: list[metrics.Collection]) -> dict[str, float]:
  """Returns the metrics of several steps, with perplexity, as one dict of floats; waits for the device."""
  total = collections[0]
  for collection in collections[1:]:
    total = total.merge(collection)
  values = {name: float(value) for name, value in total.compute().items()}
  return values | {'perplexity': math.exp(min(values['loss'], 700))}


class NoLog:
  """A log that discards everything, for processes other than the one that writes."""

  def write(self, step: int, split: str, scalars: dict[str, float]) -> None:
    """Nothing."""

  def write_text(self, step: int, name: str, text: str) -> None:
    """Nothing."""

  def write_histogram(self, step: int, name: str, values: np.ndarray) -> None:
    """Nothing."""

  def write_row(self, name: str, row: dict) -> None:
    """Nothing."""

  def close(self) -> None:
    """Nothing."""


class MetricsLog(NoLog):
  """Writes scalars and texts to TensorBoard, and scalars also to `metrics.jsonl`.

  Lines of steps after `first_step`, left by a killed run, are dropped because they will be written again.
  """

  def __init__(self, workdir: Path, first_step: int):
    self._workdir = workdir
    kept = [row for row in read_metrics(workdir) if row['step'] <= first_step]
    write_whole(workdir / 'metrics.jsonl', ''.join(json.dumps(row) + '\n' for row in kept).encode())
    self._lines = (workdir / 'metrics.jsonl').open('a')
    self._tensorboard = Events(plain(workdir / 'tensorboard'), first_step + 1)

  def write(self, step: int, split: str, scalars: dict[str, float]) -> None:
    """Writes the scalars of one split at one step."""
    for name, value in scalars.items():
      self._tensorboard.add(step, summary.scalar(f'{split}/{name}', value))
    self._lines.write(json.dumps({'step': step, 'split': split} | scalars) + '\n')
    self._lines.flush()
    os.fsync(self._lines.fileno())  # mounted object storage keeps synced data, not flushed data

  def write_text(self, step: int, name: str, text: str) -> None:
    """Writes a text sample in Markdown to TensorBoard."""
    self._tensorboard.add(step, summary.text(name, text))

  def write_histogram(self, step: int, name: str, values: np.ndarray) -> None:
    """Writes a distribution to TensorBoard."""
    self._tensorboard.add(step, summary.histogram(name, values, _BINS))

  def write_row(self, name: str, row: dict) -> None:
    """Writes a line to another file of the run, which is never truncated."""
    with (self._workdir / f'{name}.jsonl').open('a') as file:
      file.write(json.dumps(row) + '\n')

  def close(self) -> None:
    """Writes buffered data."""
    with contextlib.closing(self._tensorboard):
      self._lines.close()


def read_metrics(workdir: Path, name: str = 'metrics') -> list[dict]:
  """Reads the lines of `metrics.jsonl` or another such file, without a last line that a kill truncated; empty if there
  is no file."""
  path = Path(workdir) / f'{name}.jsonl'
  rows = []
  for line in path.read_text().splitlines() if path.exists() else []:
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      if name == 'metrics':
        break
  return rows
