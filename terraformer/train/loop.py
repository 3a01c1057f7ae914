"""The training run, top to bottom in the order in which things happen."""

import contextlib
import dataclasses
import math
from pathlib import Path

import jax
import numpy as np

from terraformer.config import RunConfig, UserError, differences, to_dict
from terraformer.data.batches import Prepared, open_prepared, prefetch
from terraformer.data.prepare import ensure_prepared
from terraformer.models.parameters import count, split
from terraformer.train import checkpoint
from terraformer.train.interruption import interruption
from terraformer.train.metrics import MetricsLog, summarise
from terraformer.train.optimizer import make_optimizer, make_schedule
from terraformer.train.plot import plot_loss
from terraformer.train.report import Report
from terraformer.train.sharding import batch_sharding, make_mesh
from terraformer.train.state import abstract_model, abstract_state, init_state
from terraformer.train.step import make_eval_step, make_sample_step, make_train_step

# What may differ between a checkpoint and the command that resumes it: it changes what is reported and when, or how
# long the run is, and not what a step computes.
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
    gin_text: the operative gin config, kept in every checkpoint for people to read.
    progress: whether to show a progress bar with an estimate on the standard error.

  Raises:
    UserError: if the data do not fit the model, or the folder holds a run of another configuration.
    DivergedError: if the loss or the gradient's norm is not finite; nothing is saved after that.
  """
  workdir, config = Path(workdir), run.train
  newest = checkpoint.latest_step(workdir)
  if newest is not None:
    _require_same_run(workdir, newest, run)
  ensure_prepared(run.data)
  data = open_prepared(run.data)
  _require_fit(run, data, workdir, newest)

  mesh = make_mesh(config.mesh)
  init_key, noise_key = jax.random.split(jax.random.key(config.seed))
  optimizer, schedule = make_optimizer(config.optimizer), make_schedule(config.optimizer.schedule)
  checkpoints = checkpoint.Checkpoints(workdir, config.keep_checkpoints)
  if newest is None:
    state = init_state(run.model, optimizer, mesh, init_key)
  else:
    state = checkpoints.restore(newest, abstract_state(run.model, optimizer, mesh))
  first_step = newest or 0
  structure, _ = split(abstract_model(run.model))
  stored = {
    'config': to_dict(run),
    'gin': gin_text,
    'data_fingerprint': data.fingerprint,
    'vocabulary': {'sentinels': data.vocabulary.sentinels, 'fingerprint': data.vocabulary.fingerprint},
  }
  (workdir / 'vocabulary.model').write_bytes(data.vocabulary.model_bytes)

  train_step = jax.jit(make_train_step(structure, optimizer, schedule, noise_key), donate_argnums=0)
  eval_step = jax.jit(make_eval_step(structure))
  sample_step = jax.jit(make_sample_step(structure, run.data.targets_length, data.vocabulary.size))
  place = batch_sharding(mesh)
  batches = data.train_batches(config.batch_size, config.seed)

  def load(step):
    batch = batches.batch(step)
    return batch['index'], jax.device_put({name: batch[name] for name in ('inputs', 'targets')}, place)

  def evaluate(params):
    found = [
      eval_step(params, jax.device_put({name: batch[name] for name in ('inputs', 'targets')}, place))
      for batch in data.eval_batches('validation', config.batch_size, config.eval_batches)
    ]
    return summarise(found)

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
      stopping = bool(asked)
      done = stopping or step == config.steps
      if done:
        report.settle()
      if done or step % config.log_every == 0:
        report.log()
      if not stopping and config.eval_every and (done or step % config.eval_every == 0):
        last_eval = evaluate(state['params'])
        report.evaluation(step, last_eval)
      if not stopping and config.sample_every and (done or step % config.sample_every == 0):
        report.samples(step, _samples(sample_step, state['params'], data))
      if done or step % config.checkpoint_every == 0:
        report.settle()  # a state that is not finite must not replace a good one
        checkpoints.save(step, state, stored)
      if stopping:
        break
  plot_loss(workdir, {'unigram model': unigram_perplexity(data, 'validation', config)})
  return TrainResult(int(state['step']), asked.signal.name if asked else None, last_eval)


def unigram_perplexity(data: Prepared, split: str, config) -> float:
  """Perplexity, on what an evaluation reads, of the training targets' token frequencies (plus one)."""
  log_probability_V = np.log(data.unigram_counts / data.unigram_counts.sum())
  targets = [batch['targets'] for batch in data.eval_batches(split, config.batch_size, config.eval_batches)]
  tokens = np.concatenate([batch[batch != 0] for batch in targets])
  return math.exp(-log_probability_V[tokens].mean())


def _samples(sample_step, params, data: Prepared, n: int = 2) -> list[tuple[str, str, str]]:
  """(source, reference, what the model wrote) of the first validation examples."""
  batch = next(iter(data.eval_batches('validation', n, 1)))
  tokens_BxT = np.asarray(sample_step(params, batch['inputs']))
  texts = data.eval_texts('validation', n)
  return [(*pair, data.vocabulary.decode(tokens)) for pair, tokens in zip(texts, tokens_BxT.tolist(), strict=False)]


def _require_same_run(workdir: Path, step: int, run: RunConfig) -> None:
  stored, _ = checkpoint.read_run(workdir, step)
  changed = [change for change in differences(stored, run) if not change.startswith(_MAY_CHANGE)]
  if changed:
    raise UserError(f'{workdir}: expected the configuration of the run that it holds, found {changed[0]}')


def _require_fit(run: RunConfig, data: Prepared, workdir: Path, newest: int | None) -> None:
  if data.vocabulary.size > run.model.vocab_size:
    raise UserError(
      f'TerraformerConfig.vocab_size: expected at least the vocabulary of the data ({data.vocabulary.size}), '
      f'found {run.model.vocab_size}'
    )
  if newest is not None:
    _, stored = checkpoint.read_run(workdir, newest)
    if stored['data_fingerprint'] != data.fingerprint:
      raise UserError(
        f'{workdir}: expected the data that the run began with ({stored["data_fingerprint"][:12]}), '
        f'found others ({data.fingerprint[:12]})'
      )
