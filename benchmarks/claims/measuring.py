"""What is measured at the end of a run."""

import dataclasses
import math
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import terraformer
from benchmarks.claims.experiment import Experiment
from terraformer.config import DecimalCopyConfig, RunConfig
from terraformer.data.source import Example, make_source
from terraformer.decode.bundle import open_bundle
from terraformer.decode.decoder import Decoder
from terraformer.models.twin import n_parameters
from terraformer.training.metrics import read_metrics

_TOGETHER = 100  # numbers that are decoded together
_SEED = 2  # of the numbers to measure; those in training have 0


def measure(experiment: Experiment, run: RunConfig, workdir: Path) -> dict[str, Any]:
  """Returns the size of a finished run and its measurements."""
  found = {'parameters': n_parameters(run.model), 'steps': run.train.steps, 'losses': losses(workdir)}
  if experiment.lengths:
    texts = texts_by_length(run, workdir, experiment.lengths, experiment.numbers)
    found['numbers'] = experiment.numbers
    found['exact'] = {
      str(length): float(np.mean([text == example['targets'] for example, text in pairs]))
      for length, pairs in texts.items()
    }
    if isinstance(run.data.source, DecimalCopyConfig):
      found['jumps'] = jumps(pair for pairs in texts.values() for pair in pairs)
  return found


def losses(workdir: Path) -> dict[str, dict[str, float]]:
  """Returns step -> loss (nats per token) and accuracy of the validation split."""
  rows = [row for row in read_metrics(workdir) if row['split'] == 'validation']
  return {str(row['step']): {name: round(row[name], 5) for name in ('loss', 'accuracy')} for row in rows}


def texts_by_length(
  run: RunConfig, workdir: Path, lengths: tuple[int, ...], numbers: int
) -> dict[int, list[tuple[Example, str]]]:
  """Returns number of digits -> examples and what the last checkpoint makes of their sources, by greedy decoding."""
  with tempfile.TemporaryDirectory(dir=workdir) as folder:
    terraformer.export(workdir, Path(folder) / 'bundle')
    bundle = open_bundle(Path(folder) / 'bundle')
    # The bundle would cut sources, and its texts, to the lengths in training. One length for all needs few programs.
    longer = max(lengths) / run.data.source.train_digits[1]
    rooms = {name: math.ceil(getattr(bundle, name) * longer) for name in ('inputs_length', 'targets_length')}
    decoder, found = Decoder(dataclasses.replace(bundle, **rooms)), {}
    for length in lengths:
      source = make_source(dataclasses.replace(run.data.source, test_digits=(length, length), seed=_SEED))
      examples = [source.example('test', index) for index in range(numbers)]
      texts: list[str] = []
      for first in range(0, numbers, _TOGETHER):
        texts += decoder.generate_batch([one['inputs'] for one in examples[first : first + _TOGETHER]])
      found[length] = list(zip(examples, texts, strict=True))
  return found


def jumps(pairs: Iterable[tuple[Example, str]]) -> dict[str, int]:
  """Returns how many copies are wrong, and how many of these go on from another place of the source.

  That is: the last right digit and the three after it are found elsewhere in the source.
  """
  wrong = [(example['targets'], text) for example, text in pairs if text != example['targets']]
  jumped = 0
  for number, text in wrong:
    right = len(os.path.commonprefix([number, text]))
    window = text[max(0, right - 1) : right + 3]
    places = {at for at in range(len(number)) if number.startswith(window, at)}
    jumped += len(window) == 4 and bool(places - {right - 1})
  return {'wrong': len(wrong), 'jumped': jumped}
