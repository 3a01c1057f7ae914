"""The training run, top to bottom in the order in which things happen."""

import contextlib
import dataclasses
import fcntl
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from terraformer.config import RunConfig, UserError, differences, to_dict
from terraformer.data.batches import Prepared, open_prepared, prefetch
from terraformer.data.prepare import ensure_prepared
from terraformer.models.make import abstract_model
from terraformer.models.parameters import count, split
from terraformer.train import checkpoint
from terraformer.train.files import write_whole
from terraformer.train.interruption import interruption
from terraformer.train.metrics import MetricsLog, summarise
from terraformer.train.optimizer import make_optimizer, make_schedule
from terraformer.train.plot import plot_loss
from terraformer.train.report import Report
from terraformer.train.sharding import batch_sharding, make_mesh
from terraformer.train.state import abstract_state, init_state
from terraformer.train.step import make_eval_step, make_sample_step, make_train_step

# What may differ between a checkpoint and the command that resumes it: how long the run is, what is reported and when,
# where things are, and how many devices share the work (which changes the order of sums, and so the last bits).
_MAY_CHANGE = (
  'train.steps',
  'train.log_every',
  'train.eval_every',
  'train.eval_batches',
  'train.sample_every',
  'train.checkpoint_every',
  'train.keep_checkpoints',
  'train.mesh.',
  'data.directory',
)


@dataclasses.dataclass(frozen=True)
class TrainResult:
  """How a run ended.

  Attributes:
    step: steps done.
    interrupted: name of the signal that stopped it early, or None.
    metrics: of the last evaluation; empty where there was none.
  """

  step: int
  interrupted: str | None
  metrics: dict[str, float]


def train(run: RunConfig, workdir: Path, *, gin_text: str = '', progress: bool = True) -> TrainResult:
  """Trains in `workdir`, from its newest checkpoint where it has one, to step `run.train.steps`.

  Args:
    run: the whole configuration.
    workdir: takes checkpoints, metrics, TensorBoard events and a plot of the loss.
    gin_text: gin that makes `run` again, kept in every checkpoint: for people, and to resume without any gin file.
    progress: whether to show a progress bar with an estimate on the standard error.

  Raises:
    UserError: if the data do not fit the model, or the folder holds a run of another configuration.
    DivergedError: if the loss or the gradient's norm is not finite; nothing is saved after that.
  """
  workdir = Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  with _locked(workdir):
    return _train(run, workdir, gin_text, progress)


def _train(run: RunConfig, workdir: Path, gin_text: str, progress: bool) -> TrainResult:
  config = run.train
  newest = checkpoint.latest_step(workdir)
  stored = None if newest is None else checkpoint.read_run(workdir, newest)
  if stored is not None:
    _require_same_run(workdir, stored[0], run)
  ensure_prepared(run.data, progress)
  data = open_prepared(run.data)
  mesh = make_mesh(config.mesh)
  _require_fit(run, data, mesh)
  if stored is not None:
    _require_same_data(workdir, stored[1], data)

  init_key, noise_key = jax.random.split(jax.random.key(config.seed))
  optimizer, schedule = make_optimizer(config.optimizer), make_schedule(config.optimizer.schedule)
  checkpoints = checkpoint.Checkpoints(workdir, config.keep_checkpoints)
  if newest is None:
    state = init_state(run.model, optimizer, mesh, init_key, config.mesh.rules)
  else:
    state = checkpoints.restore(newest, abstract_state(run.model, optimizer, mesh, config.mesh.rules))
  first_step = newest or 0
  structure, _ = split(abstract_model(run.model))
  description = {
    'config': to_dict(run),
    'gin': gin_text,
    'data_fingerprint': data.fingerprint,
    'corpus_fingerprint': data.manifest.corpus_fingerprint,
    'vocabulary': {'sentinels': data.vocabulary.sentinels, 'fingerprint': data.vocabulary.fingerprint},
  }
  _keep_vocabulary(workdir / 'vocabulary.model', data.vocabulary.model_bytes)

  train_step = jax.jit(make_train_step(structure, optimizer, schedule, noise_key), donate_argnums=0)
  eval_step = jax.jit(make_eval_step(structure))
  sample_step = jax.jit(make_sample_step(structure, run.data.targets_length, data.vocabulary.size))
  place = batch_sharding(mesh)
  batches = data.train_batches(config.batch_size, config.seed)

  def put(batch):
    return jax.device_put({name: batch[name] for name in ('inputs', 'targets')}, place)

  def load(step):
    batch = batches.batch(step)
    return batch['index'], put(batch)

  def held_out():
    return data.eval_batches('validation', config.batch_size, config.batch_size * config.eval_batches)

  def evaluate(params):
    return summarise([eval_step(params, put(batch)) for batch in held_out()])

  log = MetricsLog(workdir, first_step)
  last_eval: dict[str, float] = {}
  with (
    jax.set_mesh(mesh),
    contextlib.closing(checkpoints),
    contextlib.closing(log),
    contextlib.closing(Report(log, run, first_step, progress, count(state['params']))) as report,
    interruption() as asked,
  ):
    for step, (index_B, batch) in enumerate(prefetch(load, first_step, config.steps), first_step + 1):
      state, metrics = train_step(state, batch)
      report.note(step, metrics, index_B)
      last = step == config.steps
      stopping = bool(asked) and not last
      saving = stopping or last or step % config.checkpoint_every == 0
      if saving:
        report.settle()  # a state that is not finite must not replace a good one
      if saving or step % config.log_every == 0:
        report.log()
      if not stopping and config.eval_every and (last or step % config.eval_every == 0):
        last_eval = evaluate(state['params'])
        report.evaluation(step, last_eval)
      if not stopping and config.sample_every and (last or step % config.sample_every == 0):
        report.samples(step, _samples(sample_step, state['params'], data))
      if saving:
        checkpoints.save(step, state, description)
      if stopping:
        break
  baselines = {}
  if data.size('validation'):
    losses = np.concatenate([data.unigram_losses(batch['targets']) for batch in held_out()])
    baselines['unigram model'] = math.exp(losses.mean())
  plot_loss(workdir, baselines)
  step = int(state['step'])
  return TrainResult(step, asked.signal.name if asked and step < config.steps else None, last_eval)


def _samples(sample_step, params, data: Prepared, n: int = 2) -> list[tuple[str, str, str]]:
  """(source, reference, what the model wrote) of the first validation examples."""
  batch = next(iter(data.eval_batches('validation', n, n)))
  tokens_BxT = np.asarray(sample_step(params, batch['inputs']))
  texts = data.eval_texts('validation', n)
  return [(*pair, data.vocabulary.decode(tokens)) for pair, tokens in zip(texts, tokens_BxT.tolist(), strict=False)]


def _require_same_run(workdir: Path, stored: RunConfig, run: RunConfig) -> None:
  changed = [change for change in differences(stored, run) if not change.startswith(_MAY_CHANGE)]
  if changed:
    raise UserError(f'{workdir}: expected the configuration of the run that it holds, found {changed[0]}')


def _require_same_data(workdir: Path, stored: dict[str, Any], data: Prepared) -> None:
  if stored['data_fingerprint'] != data.fingerprint:
    raise UserError(
      f'{workdir}: expected the data that the run began with ({stored["data_fingerprint"][:12]}), '
      f'found others ({data.fingerprint[:12]})'
    )


def _require_fit(run: RunConfig, data: Prepared, mesh: jax.sharding.Mesh) -> None:
  if data.vocabulary.size > run.model.vocab_size:
    raise UserError(
      f'{type(run.model).__name__}.vocab_size: expected at least the vocabulary of the data ({data.vocabulary.size}), '
      f'found {run.model.vocab_size}'
    )
  if (run.train.eval_every or run.train.sample_every) and not data.size('validation'):
    raise UserError(
      f'task {run.data.task}: expected validation examples for evaluation and samples, found none; '
      'set TrainConfig.eval_every and sample_every to 0 to train without'
    )
  shares = mesh.shape['data'] * mesh.shape['fsdp']
  if run.train.batch_size % shares:
    raise UserError(
      f'TrainConfig.batch_size: expected a multiple of the devices that share it ({shares}), '
      f'found {run.train.batch_size}'
    )


def _keep_vocabulary(path: Path, model_bytes: bytes) -> None:
  if not path.exists() or path.read_bytes() != model_bytes:
    write_whole(path, model_bytes)


@contextlib.contextmanager
def _locked(workdir: Path) -> Iterator[None]:
  """One process a run: a second one would clean away what the first is saving. A killed process lets go by itself."""
  with (workdir / '.lock').open('a') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(f'{workdir}: expected to be the only process that trains here, found another at work') from None
    yield
