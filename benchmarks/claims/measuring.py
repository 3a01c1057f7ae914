"""What is measured at the end of a run."""

import dataclasses
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import terraformer
from benchmarks.claims.experiment import Experiment
from terraformer.config import RunConfig
from terraformer.data.source import make_source
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
    found['exact'] = exact_by_length(run, workdir, experiment.lengths, experiment.numbers)
    found['numbers'] = experiment.numbers
  return found


def losses(workdir: Path) -> dict[str, dict[str, float]]:
  """Returns step -> loss (nats per token) and accuracy of the validation split."""
  rows = [row for row in read_metrics(workdir) if row['split'] == 'validation']
  return {str(row['step']): {name: round(row[name], 5) for name in ('loss', 'accuracy')} for row in rows}


def exact_by_length(run: RunConfig, workdir: Path, lengths: tuple[int, ...], numbers: int) -> dict[str, float]:
  """Returns number of digits -> share of examples whose decoded text is right, by greedy decoding of the last
  checkpoint."""
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
      found[str(length)] = float(np.mean([text == one['targets'] for text, one in zip(texts, examples, strict=True)]))
  return found
