"""Decoding on a CPU: milliseconds a token of a sparse model and its dense twin, beside what the memory allows.

Weights are random, so that the controllers pick all units alike: the worst case for a cache. The encoder is left out,
since decoding does not read it.

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
_TURN = 6  # tokens that a variant writes before it is another's turn
_SETTLE = 20  # tokens, at least, after which resident memory is read
_ROOM = _TURN + 2  # places behind the context: a turn's tokens; a turn begins behind the context again


@dataclasses.dataclass(frozen=True)
class DecodeTime:
  """One variant at one context and batch.

  Attributes:
    variant: what is sparse: feed-forward, projections, output.
    layers: of the decoder, of how many; fewer than all are a slice of the model.
    context, batch, dtype: positions behind which tokens are written, texts side by side, type of the rows.
    params: of the model, or of the slice of it, without the encoder.
    ms_per_token, min_ms: of a step, which writes a token of each text; median and least.
    tokens: that were measured.
    bytes_per_token: that a step must touch: parameters, keys and values.
    bandwidth: bytes a second that the machine reads, mean of the begin and the end of the run.
    bandwidth_share: of it that the median step reaches.
    resident_bytes: of the process after some tokens of this variant alone.
    parts: milliseconds of a step's parts, each as a program of its own, without what a call takes; and that as `call`.
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
    """Of all texts together."""
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
  """The models to compare: the dense twin, and more and more of its layers replaced by those of `config`."""
  twin = dense_twin(config)
  block, dense_block = config.blocks['decoder'], twin.blocks['decoder']
  if not block.feed_forward.picks_units:
    raise UserError('bench decode: expected a model with sparse feed-forward blocks, found one without')
  size = block.feed_forward.block_size
  d_ff = max(1, round(dense_block.feed_forward.d_ff / size)) * size
  sparse_ff = dataclasses.replace(block.feed_forward, d_ff=d_ff)
  for name in names:
    if name not in VARIANTS:
      raise UserError(f'--variants: expected some of {", ".join(VARIANTS)}, found {name!r}')
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
  """Measures all variants at every context and batch; of one context and batch, in turns.

  Args:
    config: of the sparse model.
    variants: of `VARIANTS`.
    layers: of encoder and decoder, for a slice of the model; None for all.
    bfloat16: whether rows are stored in half the space.
    contexts: positions of the cache that are filled.
    batches: texts side by side.
    tokens: measured of each, at least.
    scratch: folder of the file that stands for the weights; None for the system's.
    say: is told what is under way.

  Raises:
    UserError: if the model has no sparse feed-forward blocks, fewer positions than a context, or
      this machine no room for it.
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
  """What a step reads, by name."""
  stored = stored_shapes(config, layouts_before_panels(config, bfloat16))
  return {name: x for name, x in stored.items() if facts[name].in_step}


def _n_decoding(config: ModelConfig, facts: ModelFacts) -> int:
  """Parameters without those that read the source alone, of whose keys and values the decoder makes its own."""
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
  """The state behind `context` random positions, with places for `room` more."""
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
  return jax.tree.map(jnp.copy, state)  # a step takes the buffers, and none of them may be two arrays'


def _take_turn(case: _Case) -> None:
  """Writes tokens as the decoder does, a step ahead of what it looks at, and keeps the time between them."""
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
  """Median milliseconds of each part of a step."""
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
  """The variants that were measured side by side."""
  groups: dict[tuple[int, int], list[DecodeTime]] = {}
  for result in results:
    groups.setdefault((result.context, result.batch), []).append(result)
  return groups


def as_table(results: Sequence[DecodeTime]) -> str:
  """Measurements for people, a paragraph each, with what each takes in its parts."""
  groups = by_context_and_batch(results).values()
  return '\n'.join(_paragraph(result, group) for group in groups for result in group)


def _paragraph(result: DecodeTime, group: Sequence[DecodeTime]) -> str:
  times_faster = max(other.ms_per_token for other in group) / result.ms_per_token
  some, whole = result.layers
  part = '' if some == whole else f', a slice: {some} of {whole} decoder layers'
  parts = ', '.join(f'{name} {ms:.2f}' for name, ms in result.parts.items())
  lines = (
    f'{result.variant}: {result.ms_per_token:.2f} ms a step, {times_faster:.1f} times as fast as the slowest',
    f'  context {result.context:,}, batch {result.batch}, {result.dtype}, {result.params / 1e6:,.1f} million parameters'
    f'{part}',
    f'  least {result.min_ms:.2f} ms of {result.tokens} steps, {result.tokens_per_second:,.1f} tokens a second',
    f'  touches {result.bytes_per_token / 1e6:,.1f} MB, {result.bandwidth_share:.0%} of what the machine reads, '
    f'{result.bandwidth / 1e9:.1f} GB/s',
    f'  {result.resident_bytes / 1e6:,.0f} MB resident after some {_SETTLE} tokens',
    f'  parts alone, in ms: {parts}',
  )
  return '\n'.join(lines)
