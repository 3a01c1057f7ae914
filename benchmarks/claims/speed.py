"""Times of a training step and of a decoded token, of models that take turns. Run it while the machine is idle."""

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.claims.experiment import Experiment
from benchmarks.claims.running import commit, machine
from terraformer.bench.decode_case import Case, Spec
from terraformer.bench.machine import bytes_of, random_pool
from terraformer.config import RunConfig
from terraformer.decode.bundle import parameter_shapes
from terraformer.decode.native.description import NoKernelError
from terraformer.decode.xla import decoding_form
from terraformer.files import write_whole
from terraformer.training.clock import Clock
from terraformer.training.programs import Programs
from terraformer.training.sharding import batch_sharding, make_mesh

NAME = 'speed.json'
# One seed of each model: a loss is worth more if it costs less.
_LAYERS = ('dense', 'ff', 'qkv', 'ff_qkv', 'ff_qkv_output', 'switch')
MEASURED = ','.join(
  [f'text-{name}-0' for name in _LAYERS]
  + ['larger_text-*-0', 'pairs-terraformer-0', 'pairs-encoder_decoder-0', 'long-*-0']
)
_ROUNDS, _CONTEXT = 15, 64


def write_speed(experiments: list[Experiment], results: Path) -> None:
  """Measures the models of some experiments and writes `speed.json`.

  A file that is there keeps what is not measured now.

  Args:
    experiments: which models.
    results: folder of all results.
  """
  runs = {each.variant: each.run(Path('unused')) for each in experiments}
  path = results / NAME
  found = json.loads(path.read_text()) if path.exists() else {}
  steps = _medians({name: _training(run) for name, run in runs.items()})
  tokens = token_seconds(runs)
  for name in runs:
    found[name] = {
      'step_seconds': round(steps[name], 4),
      'token_seconds': round(tokens[name], 7) if name in tokens else None,
      'commit': commit(),
      'machine': machine(),
    }
  write_whole(path, (json.dumps(found, indent=1) + '\n').encode())


def _training(run: RunConfig) -> Callable[[], float]:
  """Returns a function that takes a training step on random tokens and returns its seconds; it is compiled already."""
  mesh = make_mesh(run.train.mesh)
  with jax.set_mesh(mesh):
    programs = Programs(run.model, run.train, mesh, Clock(), (1, run.model.vocab_size))
    rng, size = np.random.default_rng(0), run.train.batch_size
    shapes = {name: (size, length) for name, length in run.data.lengths.items()}
    rows = {name: rng.integers(1, run.model.vocab_size, shape).astype(np.int32) for name, shape in shapes.items()}
    batch = {name: jax.device_put(row, batch_sharding(mesh)) for name, row in rows.items()}
    kept: dict[str, Any] = {'state': programs.fresh_state()}

  def step() -> float:
    with jax.set_mesh(mesh):
      begun = time.perf_counter()
      kept['state'], metrics, _ = programs.train(kept['state'], batch)
      jax.block_until_ready((kept['state'], metrics))
      return time.perf_counter() - begun

  step()
  return step


def token_seconds(runs: dict[str, RunConfig]) -> dict[str, float]:
  """Returns the median time of a decoded token by name, with random weights and the native engine, in float32.

  Models for which it has no kernel are left out.
  """
  models = {
    name: decoding_form(run.model, run.data.inputs_length, run.data.targets_length) for name, run in runs.items()
  }
  n_bytes = max(bytes_of(parameter_shapes(model)) for model in models.values())
  with random_pool(2 * n_bytes) as pool:
    spec = Spec('', 'native', 'float32', 'float32')
    cases = {}
    for name, model in models.items():
      with contextlib.suppress(NoKernelError):
        cases[name] = Case(spec, model, pool, _CONTEXT, 1)
    for _, case in _turns(cases):
      case.take_turn()
    return {name: statistics.median(case.seconds) for name, case in cases.items()}


def _medians(measured: dict[str, Callable[[], float]]) -> dict[str, float]:
  """Returns the median seconds of functions that take turns."""
  seconds: dict[str, list[float]] = {name: [] for name in measured}
  for name, take in _turns(measured):
    seconds[name].append(take())
  return {name: statistics.median(each) for name, each in seconds.items()}


def _turns(each: dict[str, Any]) -> Iterator[tuple[str, Any]]:
  """Yields every item once per round, so that all see the same states of the machine."""
  for _ in range(_ROUNDS):
    yield from each.items()
