"""What is read out of a stored run: by the script that stores it, and by the test that compares.

A format has a folder of its own in `tests/fixtures/formats`. Of each run it holds NAME.tar.xz (the folder in which the
run was prepared, trained, evaluated and exported), NAME.json (what is to come out of it) and NAME.npz (its parameters
some steps later); `formats.json` has the numbers of the formats. Paths are relative to the
folder that is unpacked, which is the working folder.
"""

import contextlib
import hashlib
import tarfile
from pathlib import Path

import numpy as np

from terraformer.cli import main
from terraformer.config import DecodeConfig, RunConfig
from terraformer.data.batches import open_prepared
from terraformer.decode.decoder import Decoder
from terraformer.models.parameters import flatten
from terraformer.training import best, checkpoint
from terraformer.training.metrics import read_metrics

FORMATS = Path(__file__).parent / 'fixtures' / 'formats'
RUN, BUNDLE = Path('run'), Path('bundle')
TEXTS = 4  # of the test split, in the order in which it is evaluated


def unpack(format_name: str, name: str, folder: Path) -> None:
  """A stored run in a folder."""
  with tarfile.open(FORMATS / format_name / f'{name}.tar.xz') as archive:
    archive.extractall(folder, filter='data')


def places() -> list[Path]:
  """The folders of checkpoints that a run has."""
  return [path for path in (RUN, best.folder(RUN), RUN / 'permanent') if checkpoint.steps(path)]


def params(place: Path, step: int) -> dict[str, np.ndarray]:
  """The parameters of a checkpoint by name."""
  run, _ = checkpoint.read_run(place, step)
  return {name: np.asarray(array) for name, array in flatten(checkpoint.restore_params(place, step, run)).items()}


def checksums(arrays: dict[str, np.ndarray]) -> dict[str, str]:
  """Type, shape and the beginning of the sha256 of each."""
  return {
    name: f'{x.dtype}{list(x.shape)} {hashlib.sha256(x.tobytes()).hexdigest()[:16]}' for name, x in arrays.items()
  }


def first_batch(run: RunConfig) -> dict[str, list]:
  """The batch of the first step."""
  batch = open_prepared(run.data).train_batches(run.train.batch_size, run.train.seed).batch(0)
  return {name: array.tolist() for name, array in batch.items()}


def held_out_texts(run: RunConfig) -> list[list[str]]:
  """Source and reference of the first examples of the test split."""
  return [list(pair) for pair in open_prepared(run.data).eval_texts('test', TEXTS)]


def tokens(decoder: Decoder, prompt: str) -> list[int]:
  """What a bundle writes greedily."""
  return list(decoder.tokens(prompt, DecodeConfig()))


def resume(folder: Path, steps: int) -> tuple[dict[str, np.ndarray], list[float]]:
  """Goes on with the run in a folder to so many steps, by what its checkpoint says of it and no other configuration:
  the parameters, and the loss of each step."""
  more = (f'steps = {steps}', 'log_every = 1', 'sample_every = 0', 'diagnostics_every = 0')
  bindings = (f'config.TrainConfig.{field}' for field in more)
  with contextlib.chdir(folder):
    first = checkpoint.require_step(RUN)
    status = main(['train', f'--workdir={RUN}', '--quiet', *(f'--gin_bindings={each}' for each in bindings)])
    assert status == 0, f'{folder}: the command ended with status {status}'
    losses = [row['loss'] for row in read_metrics(RUN) if row['split'] == 'train' and row['step'] > first]
    return params(RUN, steps), losses
