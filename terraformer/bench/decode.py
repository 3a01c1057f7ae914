"""Compares decoding of a sparse model and its dense twin on a CPU: milliseconds per token, and the share of bandwidth.

Weights are random, so that the controllers pick all units equally often, the worst case for a cache. The encoder is
omitted, since decoding does not read it.

B batch, S source time, D d_model, V vocabulary.
"""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.bench.machine import (
  Pool,
  bytes_of,
  random_pool,
  read_bandwidth,
  require_disk,
  require_memory,
  resident_bytes,
)
from terraformer.bench.parts import EMPTY, part_programs
from terraformer.config import DecodeConfig, ModelConfig, UserError
from terraformer.decode import step as steps
from terraformer.decode import xla
from terraformer.decode.bundle import parameter_shapes, stored_shapes
from terraformer.decode.sampling import SamplingParams
from terraformer.decode.shapes import abstract_layerwise, layerwise_facts
from terraformer.decode.storage import layouts_before_panels
from terraformer.layers.parameter import ModelFacts
from terraformer.models.base import DecodeState
from terraformer.models.cost import cache_numbers, n_read
from terraformer.models.twin import dense_twin
from terraformer.ops.cache_slots import FilledSlots, prompt_slots
from terraformer.ops.recent_keys import RecentKeys, keys_of

VARIANTS = ('dense', 'ff', 'ff_qkv', 'ff_qkv_output')
_TURN = 6  # tokens that a variant generates in one turn
_SETTLE = 20  # minimum number of tokens before resident memory is measured
_ROOM = _TURN + 2  # slots after the context for the tokens of one turn; each turn overwrites them


@dataclasses.dataclass(frozen=True)
class DecodeTime:
  """Measurements of one variant at one context and batch.

  Attributes:
    variant: one of `VARIANTS`, which name the sparse parts: feed-forward, projections, output.
    layers: the number of measured decoder layers, and of all decoder layers of the model.
    context, batch, dtype: positions before the new tokens, texts in the batch, type of the rows.
    params: number of parameters of the model, or of its slice, without the encoder.
    ms_per_token, min_ms: median and minimum time of a step, which generates one token for each text.
    tokens: number of measured steps.
    bytes_per_token: bytes that a step must read: parameters, keys and values.
    bandwidth: bytes per second that the machine reads, the mean of measurements at the beginning and the end.
    bandwidth_share: share of `bandwidth` that the median step reaches.
    resident_bytes: resident memory of the process after several tokens of this variant alone.
    parts: milliseconds of a step's parts, each run as a separate program, without the overhead of a call, which is
      under `call`.
  """

  variant: str
  layers: tuple[int, int]
  context: int
  batch: int
  dtype: str
  params: int
  ms_per_token: float
  min_ms: float
  tokens: int
  bytes_per_token: int
  bandwidth: float
  bandwidth_share: float
  resident_bytes: int
  parts: dict[str, float]

  @property
  def tokens_per_second(self) -> float:
    """Tokens per second of all texts together."""
    return 1000 * self.batch / self.ms_per_token


@dataclasses.dataclass
class _Case:
  """A variant that is being measured."""

  config: ModelConfig
  weights: xla.StepWeights
  step: Callable
  sampling: steps.SamplingState
  batch: int
  seconds: list[float]


def variants_of(config: ModelConfig, names: Sequence[str]) -> dict[str, ModelConfig]:
  """Returns the models to compare: the dense twin, and models in which more and more layers come from `config`."""
  twin = dense_twin(config)
  block, dense_block = config.blocks['decoder'], twin.blocks['decoder']
  if not block.feed_forward.picks_units:
    raise UserError('bench decode: the model has no sparse feed-forward blocks; set BlockConfig.feed_forward')
  size = block.feed_forward.block_size
  d_ff = max(1, round(dense_block.feed_forward.d_ff / size)) * size
  sparse_ff = dataclasses.replace(block.feed_forward, d_ff=d_ff)
  for name in names:
    if name not in VARIANTS:
      raise UserError(f'--variants: expected names from {", ".join(VARIANTS)}, found {name!r}')
  all_variants = {
    'dense': twin,
    'ff': dataclasses.replace(twin, decoder=dataclasses.replace(dense_block, feed_forward=sparse_ff)),
    'ff_qkv': dataclasses.replace(config, output=twin.output),
    'ff_qkv_output': config,
  }
  return {name: all_variants[name] for name in names}


def bench_decode(
  config: ModelConfig,
  variants: Sequence[str] = VARIANTS,
  layers: tuple[int, int] | None = None,
  bfloat16: bool = False,
  contexts: Sequence[int] = (64,),
  batches: Sequence[int] = (1,),
  tokens: int = 36,
  scratch: str | None = None,
  say: Callable[[str], None] = lambda _: None,
) -> Iterator[DecodeTime]:
  """Measures all variants at every context and batch, in turns, and yields the results.

  Args:
    config: the configuration of the sparse model.
    variants: names from `VARIANTS`.
    layers: numbers of encoder and decoder layers, for a slice of the model; None for all.
    bfloat16: whether rows are stored as bfloat16, in half the space.
    contexts: numbers of filled cache slots.
    batches: numbers of texts in a batch.
    tokens: minimum number of measured steps per case.
    scratch: folder for the temporary file with the weights; None for the system's.
    say: called with a line of text about the current work.

  Raises:
    UserError: if the model has no sparse feed-forward blocks or fewer positions than a context, or if this machine has
      too little memory or disk space for it.
  """
  models = {name: xla.decoding_form(model, model.max_length) for name, model in variants_of(config, variants).items()}
  whole = config.decoder_shape[0]
  if layers is not None:
    models = {name: model.with_layers(*layers) for name, model in models.items()}
  facts = {name: layerwise_facts(model) for name, model in models.items()}
  shapes = {name: _step_shapes(model, facts[name], bfloat16) for name, model in models.items()}
  n_bytes = max(map(bytes_of, shapes.values()))
  for context, batch in itertools.product(contexts, batches):
    config.check_context(context)
    n_cached = max(cache_numbers(model, context) for model in models.values())
    require_memory(4 * batch * n_cached, f'--context {context} with --batch {batch}')
  require_disk(n_bytes, scratch, 'the weights')
  say(f'writing {n_bytes / 1e9:.1f} GB of random weights')
  with random_pool(n_bytes, scratch) as pool:
    for context in contexts:
      for batch in batches:
        before = read_bandwidth()
        cases = {}
        for name, model in models.items():
          say(f'compiling {name} at context {context:,}, batch {batch}')
          cases[name] = _make_case(model, facts[name], pool.cut(shapes[name]), context, batch)
        say(f'measuring {", ".join(cases)} at context {context:,}, batch {batch}')
        while any(len(case.seconds) < tokens for case in cases.values()):
          for case in cases.values():
            _take_turn(case)
        parts = {name: _parts(case) for name, case in cases.items()}
        bandwidth = (before + read_bandwidth()) / 2
        for name, case in cases.items():
          median = statistics.median(case.seconds)
          touched = _bytes_read(case.config, facts[name], shapes[name], context, batch)
          yield DecodeTime(
            variant=name,
            layers=(case.config.decoder_shape[0], whole),
            context=context,
            batch=batch,
            dtype='bfloat16' if bfloat16 else 'float32',
            params=_n_decoding(case.config, facts[name]),
            ms_per_token=1000 * median,
            min_ms=1000 * min(case.seconds),
            tokens=len(case.seconds),
            bytes_per_token=touched,
            bandwidth=bandwidth,
            bandwidth_share=touched / median / bandwidth,
            resident_bytes=_resident(case, pool),
            parts=parts[name],
          )


def _step_shapes(config: ModelConfig, facts: ModelFacts, bfloat16: bool) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of the tensors that a step reads, by name."""
  stored = stored_shapes(config, layouts_before_panels(config, bfloat16))
  return {name: x for name, x in stored.items() if facts[name].in_step}


def _n_decoding(config: ModelConfig, facts: ModelFacts) -> int:
  """Returns the number of parameters, without those that only read the source and whose output the decoder caches."""
  shapes = parameter_shapes(config)
  return sum(x.size for name, x in shapes.items() if facts[name].in_step or facts[name].stack == 'decoder')


def _bytes_read(config: ModelConfig, facts: ModelFacts, shapes: dict[str, Any], context: int, batch: int) -> int:
  weights = sum(n_read(facts[name], shape, batch) * np.dtype(shape.dtype).itemsize for name, shape in shapes.items())
  return weights + 4 * batch * cache_numbers(config, context)


def _make_case(
  config: ModelConfig, facts: ModelFacts, tensors: dict[str, np.ndarray], context: int, batch: int
) -> _Case:
  step = steps.compile_step(xla.XlaForward(config), config.vocab_size)
  sampling = steps.SamplingState(filled_state(config, context, batch, _ROOM), jnp.int32(0), None)
  case = _Case(config, xla.step_weights(tensors, facts), step, sampling, batch, [])
  _take_turn(case)
  case.seconds.clear()
  return case


def filled_state(config: ModelConfig, context: int, batch: int, room: int) -> DecodeState:
  """Returns the state after `context` random positions, with slots for `room` more."""
  model = abstract_layerwise(config)
  inputs_BxS = jax.ShapeDtypeStruct((batch, context), jnp.int32)
  shapes = jax.eval_shape(lambda model, inputs_BxS: model.prefill(inputs_BxS, room), model, inputs_BxS)
  rng = np.random.default_rng(0)
  context_B = jnp.full(batch, context, jnp.int32)
  numbers = rng.standard_normal(1 << 20, np.float32)

  def fill(shape):
    if isinstance(shape, FilledSlots):
      return prompt_slots(context_B, context)
    if isinstance(shape, RecentKeys):
      *lead, n_buckets, n_slots = shape.position_BxHxRxNxS.shape
      return keys_of(jnp.asarray(rng.integers(0, n_buckets, (*lead, context))), context_B, n_buckets, n_slots - 1)
    if shape.dtype == jnp.int32:
      return context_B if shape.shape else jnp.int32(context)
    if shape.dtype == bool:
      return jnp.ones(shape.shape, bool)
    return jnp.resize(numbers, shape.shape)

  state = jax.tree.map(fill, shapes, is_leaf=lambda node: isinstance(node, (FilledSlots, RecentKeys)))
  return jax.tree.map(jnp.copy, state)  # a step donates the buffers, so no two arrays may share one


def _take_turn(case: _Case) -> None:
  """Generates tokens and records the time between them; starts each step before it fetches the previous token."""
  params = SamplingParams.from_config(DecodeConfig())
  state = case.sampling.state
  filled = dataclasses.replace(state.filled, next_slot=state.filled.first_new.copy())
  case.sampling = dataclasses.replace(case.sampling, state=dataclasses.replace(state, filled=filled))
  token_B = jnp.asarray(np.random.default_rng(len(case.seconds)).integers(2, case.config.vocab_size, case.batch))
  token_B, pending = token_B.astype(jnp.int32), []
  last = None
  for _ in range(_TURN + 2):
    token_B, case.sampling = case.step(case.weights, case.sampling, token_B, params)
    pending.append(token_B)
    if len(pending) > 1:
      np.asarray(pending.pop(0))
      now = time.perf_counter()
      if last is not None:
        case.seconds.append(now - last)
      last = now
  np.asarray(pending.pop())


def _parts(case: _Case) -> dict[str, float]:
  """Returns the median milliseconds of each part of a step."""
  programs = part_programs(case.config, case.weights, case.sampling.state, case.batch)
  seconds: dict[str, list[float]] = {name: [] for name in programs}
  for _ in range(10):
    for name, program in programs.items():
      begun = time.perf_counter()
      program()
      seconds[name].append(time.perf_counter() - begun)
  times = {name: 1000 * statistics.median(each[1:]) for name, each in seconds.items()}
  call = times.pop(EMPTY)
  return {name: max(0.0, ms - call) for name, ms in times.items()} | {'call': call}


def _resident(case: _Case, pool: Pool) -> int:
  pool.forget()
  for _ in range(_SETTLE // _TURN + 1):
    _take_turn(case)
  return resident_bytes()


def by_context_and_batch(results: Sequence[DecodeTime]) -> dict[tuple[int, int], list[DecodeTime]]:
  """Returns the results, grouped by context and batch."""
  groups: dict[tuple[int, int], list[DecodeTime]] = {}
  for result in results:
    groups.setdefault((result.context, result.batch), []).append(result)
  return groups


def as_table(results: Sequence[DecodeTime]) -> str:
  """Returns the results as text, one paragraph per result, with the time of each part."""
  groups = by_context_and_batch(results).values()
  return '\n'.join(_paragraph(result, group) for group in groups for result in group)


def _paragraph(result: DecodeTime, group: Sequence[DecodeTime]) -> str:
  times_faster = max(other.ms_per_token for other in group) / result.ms_per_token
  some, whole = result.layers
  part = '' if some == whole else f', a slice: {some} of {whole} decoder layers'
  parts = ', '.join(f'{name} {ms:.2f}' for name, ms in result.parts.items())
  lines = (
    f'{result.variant}: {result.ms_per_token:.2f} ms per step, {times_faster:.1f} times as fast as the slowest',
    f'  context {result.context:,}, batch {result.batch}, {result.dtype}, {result.params / 1e6:,.1f} million parameters'
    f'{part}',
    f'  minimum {result.min_ms:.2f} ms of {result.tokens} steps, {result.tokens_per_second:,.1f} tokens per second',
    f'  reads {result.bytes_per_token / 1e6:,.1f} MB per step, {result.bandwidth_share:.0%} of the read bandwidth, '
    f'{result.bandwidth / 1e9:.1f} GB/s',
    f'  {result.resident_bytes / 1e6:,.0f} MB resident after about {_SETTLE} tokens',
    f'  parts run separately, in ms: {parts}',
  )
  return '\n'.join(lines)
