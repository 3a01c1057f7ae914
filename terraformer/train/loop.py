"""The training run, top to bottom in the order in which things happen."""

import contextlib
import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from terraformer.config import InitFromConfig, RunConfig
from terraformer.data.batches import Prepared, prefetch
from terraformer.files import UnwritableError, writing
from terraformer.layers.parameter import ModelFacts, facts_of
from terraformer.models.make import abstract_model
from terraformer.models.parameters import Params, count, split
from terraformer.paths import make_folder
from terraformer.train import checkpoint, hosts, same_run, setup
from terraformer.train.best import Best
from terraformer.train.clock import Clock, StepTimes
from terraformer.train.divergence import DivergedError, Guard
from terraformer.train.feed import Feed, batch_number
from terraformer.train.initial import InitReport, take_parameters
from terraformer.train.interruption import interruption
from terraformer.train.metrics import MetricsLog, NoLog, summarise
from terraformer.train.optimizer import make_optimizer, make_schedule
from terraformer.train.profile import Profiler
from terraformer.train.program import Program
from terraformer.train.report import Report
from terraformer.train.sharding import batch_sharding, make_mesh, replicated
from terraformer.train.state import State, abstract_state, init_state, step_options
from terraformer.train.step import make_eval_step, make_probe_step, make_sample_step, make_train_step
from terraformer.train.summary import write_summary
from terraformer.train.watchdog import watchdog


@dataclasses.dataclass(frozen=True)
class TrainResult:
  """How a run ended.

  Attributes:
    step: steps done.
    interrupted: name of the signal that stopped it early, or None.
    metrics: of the last evaluation; empty where there was none.
    seconds: wall time of this process by phase (`clock.PHASES`).
  """

  step: int
  interrupted: str | None
  metrics: dict[str, float]
  seconds: dict[str, float]


def train(
  run: RunConfig,
  workdir: Path,
  *,
  gin_text: str = '',
  progress: bool = True,
  profile: tuple[int, int] | None = None,
) -> TrainResult:
  """Trains in `workdir`, from its newest checkpoint where it has one, to step `run.train.steps`.

  Where `hosts.connect` has joined several processes, each of them calls this with the same arguments.

  Args:
    run: the whole configuration.
    workdir: takes checkpoints, metrics, TensorBoard events, plots and a summary; the same for all processes.
    gin_text: gin that makes `run` again, kept in every checkpoint: for people, and to resume without any gin file.
    progress: whether to show a progress bar with an estimate on the standard error.
    profile: first and last step of a profile, for TensorBoard.

  Raises:
    UserError: if the data do not fit the model, or the folder holds a run of another configuration.
    DivergedError: if the loss or the gradient's norm is not finite, or the loss jumps, and no more batches may be left
      out; nothing is saved after that.
    UnwritableError: if the disk is full; the message tells which step is safe.
  """
  workdir = Path(workdir)
  make_folder(workdir)
  clock = Clock()
  try:
    with (
      writing(workdir),
      setup.locked(workdir),
      watchdog(run.train.watchdog, clock, workdir / hosts.own_name('hung.txt')),
    ):
      return _train(run, workdir, gin_text, progress and hosts.is_main(), profile, clock)
  except UnwritableError as error:
    raise UnwritableError(f'{error}; {checkpoint.what_is_safe(workdir)}', error.number) from error


def _train(
  run: RunConfig, workdir: Path, gin_text: str, progress: bool, profile: tuple[int, int] | None, clock: Clock
) -> TrainResult:
  config = run.train
  newest = setup.find_checkpoint(workdir, config.checkpoints.older_if_damaged)
  data = setup.open_data(run, progress)
  stored: dict[str, Any] = {}
  if newest is not None:
    stored_run, stored = checkpoint.read_run(workdir, newest)
    same_run.require_to_resume(workdir, stored_run, run, stored, data)
  permanent_folder = Path(config.checkpoints.permanent_directory or workdir / 'permanent')
  setup.require_own(permanent_folder, run, data)
  mesh = make_mesh(config.mesh)
  setup.require_divisible(run, mesh)
  description = setup.describe_run(run, data, gin_text)
  if hosts.is_main():
    setup.keep_vocabulary(workdir / 'vocabulary.model', data.vocabulary.model_bytes)

  init_key, noise_key = jax.random.split(jax.random.key(config.seed))
  model = abstract_model(run.model)
  (structure, shapes), facts = split(model), facts_of(model)
  optimizer, schedule = make_optimizer(config.optimizer, facts), make_schedule(config.optimizer.schedule)
  abstract = abstract_state(run.model, optimizer, mesh, config.mesh.rules)
  feed = Feed(data, config, batch_sharding(mesh), list(stored.get('skipped', [])))
  train_step = Program(
    make_train_step(structure, optimizer, schedule, noise_key, config.microbatches),
    clock,
    **step_options(abstract, mesh),
  )
  eval_step = Program(make_eval_step(structure), clock, out_shardings=replicated(mesh))
  probe_step = Program(make_probe_step(structure), clock, out_shardings=replicated(mesh))
  sample_step = Program(
    make_sample_step(structure, run.data.targets_length, data.vocabulary.size), clock, out_shardings=replicated(mesh)
  )
  if progress and (newest or 0) < config.steps:
    print(
      f'{count(shapes):,} parameters, {hosts.describe()}, steps {newest or 0:,} to {config.steps:,}; '
      'compiling the step',
      file=sys.stderr,
    )

  def evaluate(params) -> dict[str, float]:
    metrics = []
    for batch in feed.held_out():
      clock.enter('evaluation')  # again and again, for the watchdog
      metrics.append(eval_step(params, batch))
    return summarise(metrics)

  def fresh() -> State:
    with clock.during('compile'):  # which takes most of it
      state = init_state(run.model, optimizer, mesh, init_key, config.mesh.rules)
    if config.init_from is None:
      return state
    params, report = _take(config.init_from, state['params'], facts, data)
    if progress:
      print(report, file=sys.stderr)
    return state | {'params': params}

  def attempt(first_step: int, recent_losses: list[float]) -> tuple[int, dict[str, float]]:
    """Trains from a checkpoint, or from nothing, to the end or to a signal: steps done, and the last evaluation."""
    state = checkpoints.restore(first_step, abstract) if first_step else fresh()
    # Of a permanent checkpoint that a kill cut short this is the last chance.
    guard = Guard(config.divergence, recent_losses)
    if first_step and to_keep(first_step):
      permanent.save(first_step, state, described(guard))
    log = MetricsLog(workdir, first_step) if hosts.is_main() else NoLog()
    step, last_eval = first_step, {}
    with (
      contextlib.closing(log),
      contextlib.closing(Report(log, run, guard, clock, times, first_step, progress)) as report,
      contextlib.closing(Profiler(profile, workdir / 'tensorboard')) as profiler,
      contextlib.closing(prefetch(feed.train, first_step, config.steps)) as batches,
    ):
      clock.enter('input')
      for step, (ids_B, batch) in enumerate(batches, first_step + 1):
        clock.enter('step')
        profiler.before(step)
        state, metrics, norms = train_step(state, batch)
        profiler.after(step, metrics)
        report.note(step, metrics, norms, ids_B)
        last = step == config.steps
        stopping = asked.now() and not last
        saving = stopping or last or step % config.checkpoints.every == 0
        keeping = to_keep(step)
        watching = config.watch_every and not stopping and (last or step % config.watch_every == 0)
        if saving or keeping or watching:
          report.settle()  # a state that has diverged must not replace a good one

        clock.enter('log')
        if stopping or last:
          report.log()
        clock.enter('checkpoint')
        if saving:
          checkpoints.save(step, state, described(guard))
        if keeping:
          permanent.save(step, state, described(guard))
        if stopping:
          break

        clock.enter('evaluation')
        if watching:
          report.watch(step, jax.device_get(probe_step(state['params'], batch)))
        if config.eval_every and (last or step % config.eval_every == 0):
          last_eval = evaluate(state['params'])
          report.evaluation(step, last_eval)
          if best is not None:
            clock.enter('checkpoint')
            best.offer(step, state, described(guard), last_eval)
            clock.enter('evaluation')
        if config.sample_every and (last or step % config.sample_every == 0):
          report.samples(step, _samples(sample_step, state['params'], data))
        clock.enter('input')
      clock.enter('checkpoint')
      checkpoints.wait()
      clock.enter('log')
    return step, last_eval

  def described(guard: Guard) -> dict[str, Any]:
    """What a checkpoint tells of the run up to now."""
    return description | {'skipped': list(feed.skipped), 'recent_losses': list(guard.recent)}

  def to_keep(step: int) -> bool:
    """Whether a step belongs into the permanent folder and is not there; a run that went back comes by it again."""
    return permanent is not None and step % config.checkpoints.permanent_every == 0 and not permanent.has(step)

  times = StepTimes()
  first_step, recent_losses = newest or 0, stored.get('recent_losses', [])
  with contextlib.ExitStack() as stack:
    stack.enter_context(jax.set_mesh(mesh))
    checkpoints = stack.enter_context(
      contextlib.closing(checkpoint.Checkpoints(checkpoint.folder(workdir), config.checkpoints.keep))
    )
    permanent = None
    if config.checkpoints.permanent_every:
      permanent = stack.enter_context(contextlib.closing(checkpoint.Checkpoints(permanent_folder, None)))
    best = stack.enter_context(contextlib.closing(Best(workdir))) if config.checkpoints.best else None
    asked = stack.enter_context(interruption())
    diverged_at = None
    while True:
      try:
        step, last_eval = attempt(first_step, recent_losses)
        break
      except DivergedError as error:
        # A loss shows what the step before has done: where leaving out its own batch did not help, that one goes too.
        again = error.step == diverged_at and error.step > 1
        numbers = [batch_number(error.step - 1 - back, feed.skipped) for back in range(1 + again)]
        if len(feed.skipped) + len(numbers) > config.divergence.max_skipped:
          raise
        diverged_at, message = error.step, str(error)
      times.pause()
      clock.enter('checkpoint')
      feed.skipped += numbers
      checkpoints.wait()
      before = diverged_at - 1 if again else None
      first_step = setup.find_checkpoint(workdir, config.checkpoints.older_if_damaged, before) or 0
      checkpoints.reload()
      recent_losses = checkpoint.read_run(workdir, first_step)[1]['recent_losses'] if first_step else []
      if hosts.is_main():
        left_out = ' and '.join(map(str, numbers))
        print(f'{message}\ngoing back to step {first_step}, and on without batch {left_out}', file=sys.stderr)

  seconds = clock.seconds()
  if hosts.is_main():
    write_summary(workdir, run, step, seconds, times, feed.skipped, _baselines(run, data))
  return TrainResult(step, asked.signal.name if asked.signal and step < config.steps else None, last_eval, seconds)


def _samples(sample_step, params, data: Prepared, n: int = 2) -> list[tuple[str, str, str]]:
  """(source, reference, what the model wrote) of the first validation examples."""
  batch = next(iter(data.eval_batches('validation', n, n)))
  tokens_BxT = np.asarray(sample_step(params, batch['inputs']))
  texts = data.eval_texts('validation', n)
  return [(*pair, data.vocabulary.decode(tokens)) for pair, tokens in zip(texts, tokens_BxT.tolist(), strict=False)]


def _baselines(run: RunConfig, data: Prepared) -> dict[str, float]:
  """Perplexities to hold the validation loss against."""
  if not data.size('validation'):
    return {}
  config = run.train
  held_out = data.eval_batches('validation', config.batch_size, config.batch_size * config.eval_batches)
  losses = np.concatenate([data.unigram_losses(batch['targets']) for batch in held_out])
  return {'unigram model': math.exp(losses.mean())}


def _take(config: InitFromConfig, params: Params, facts: ModelFacts, data: Prepared) -> tuple[Params, InitReport]:
  """The parameters of another run; the main process says of which step, and that it is whole."""
  workdir = Path(config.workdir)
  step = hosts.agree(lambda: checkpoint.require_step(workdir, config.step or None))
  return take_parameters(params, facts, config, step, data.vocabulary.fingerprint)
