"""Compares decoding of a sparse model and its dense twin on a CPU, with both engines and all number types: milliseconds
per step, and the share of memory bandwidth.

Weights are random, so the controllers pick all units equally often, the worst case for a cache. The encoder is omitted,
since decoding does not read it.
"""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from terraformer.bench.decode_case import TURN, Case, Spec, n_decoding, weight_bytes
from terraformer.bench.machine import (
  Pool,
  n_cores,
  random_pool,
  read_bandwidth,
  require_disk,
  require_memory,
  resident_bytes,
)
from terraformer.bench.parts import EMPTY, part_programs
from terraformer.bench.peers import LlamaCase, Sizes, gguf_file, require_peers, sizes_like
from terraformer.config import ModelConfig, UserError
from terraformer.config.words import flag
from terraformer.decode.native.description import NoKernelError
from terraformer.decode.xla import decoding_form
from terraformer.models.cost import cache_numbers
from terraformer.models.twin import dense_twin
from terraformer.native.library import why_missing

VARIANTS = ('dense', 'ff', 'ff_qkv', 'ff_qkv_output')
_SETTLE = 20  # minimum number of tokens before resident memory is measured


@dataclasses.dataclass(frozen=True)
class DecodeTime:
  """Measurements of one variant with one engine and type, at one context and batch.

  Attributes:
    variant: one of `VARIANTS`, which name the sparse parts: feed-forward, projections, output.
    engine: `xla`, `native` or `llama.cpp`.
    about: description of the engine.
    layers: number of measured decoder layers, and of all decoder layers of the model.
    context, batch: positions before the new tokens, and texts in the batch.
    dtype, cache_dtype: types of the weights and of the KV cache.
    params: number of parameters of the model, or of its slice, without the encoder.
    ms_per_token: median time of a step, which generates one token for each text.
    min_ms: the same for the fastest turn; a step starts before the previous one is fetched, so single times say little.
    tokens: number of measured steps.
    bytes_per_token: bytes that a step must read: parameters, keys and values.
    bandwidth: bytes per second that the machine reads, the mean of measurements at the beginning and the end.
    bandwidth_share: share of `bandwidth` that the median step reaches.
    resident_bytes: resident memory of the process after several tokens of this variant alone.
    parts: milliseconds of the parts of XLA's step, each run as a separate program, without the overhead of a call,
      which is under `call`; empty for other engines.
  """

  variant: str
  engine: str
  about: str
  layers: tuple[int, int]
  context: int
  batch: int
  dtype: str
  cache_dtype: str
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


def variants_of(config: ModelConfig, names: Sequence[str]) -> dict[str, ModelConfig]:
  """Returns the models to compare: the dense twin, and models in which more and more layers come from `config`."""
  twin = dense_twin(config)
  block, dense_block = config.blocks['decoder'], twin.blocks['decoder']
  if not block.feed_forward.picks_units:
    sparse = flag('BlockConfig.feed_forward', '@config.SparseFFConfig()')
    raise UserError(f'bench decode: the model has no sparse feed-forward blocks; choose them with {sparse}')
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
  engines: Sequence[str] = ('xla', 'native'),
  dtypes: Sequence[str] = ('float32',),
  cache_dtype: str | None = None,
  contexts: Sequence[int] = (64,),
  batches: Sequence[int] = (1,),
  tokens: int = 36,
  n_threads: int | None = None,
  scratch: str | None = None,
  peers: Sequence[str] = (),
  say: Callable[[str], None] = lambda _: None,
) -> Iterator[DecodeTime]:
  """Measures every variant with every engine, in turns, at each context and batch, and yields the results.

  Args:
    config: the configuration of the sparse model.
    variants: names from `VARIANTS`.
    layers: numbers of encoder and decoder layers, for a slice of the model; None for all.
    engines: `native`, `xla` or both; XLA is measured only in float32, since it always computes in float32.
    dtypes: types of the weights for the native engine.
    cache_dtype: type of its KV cache; None for the type of the weights.
    contexts: numbers of filled cache slots.
    batches: numbers of texts in a batch.
    tokens: minimum number of measured steps per case.
    n_threads: number of threads of the native engine; None for one per core.
    scratch: folder for the temporary files with weights; None for the system's.
    peers: types of llama.cpp from `peers.TYPES`, for dense models with as many parameters as the sparsest variant.
    say: called with a line of text about the current work.

  Raises:
    UserError: if the model has no sparse feed-forward blocks or fewer positions than a context, or if this machine has
      too little memory or disk space for it.
  """
  models = {name: decoding_form(model, 0, model.max_length) for name, model in variants_of(config, variants).items()}
  whole = config.decoder_shape[0]
  if layers is not None:
    if layers[1] > whole:
      raise UserError(f'--layers: expected at most {whole} decoder layers, as many as the model has, found {layers[1]}')
    models = {name: model.with_layers(*layers) for name, model in models.items()}
  specs = list(_specs(models, engines, dtypes, cache_dtype, say))
  n_bytes = max(weight_bytes(models[spec.variant], spec.dtype) for spec in specs)
  for context, batch in itertools.product(contexts, batches):
    config.check_context(context)
    n_cached = max(cache_numbers(model, context) for model in models.values())
    require_memory(4 * batch * n_cached, f'--context {context} with --batch {batch}')
  require_disk(n_bytes, scratch, 'the weights')
  say(f'writing {n_bytes / 1e9:.1f} GB of random weights')
  with random_pool(n_bytes, scratch) as pool, _peer_files(list(models.values())[-1], peers, scratch, say) as files:
    for context, batch in itertools.product(contexts, batches):
      before, cases = read_bandwidth(), []
      for spec in specs:
        say(f'preparing {spec} at context {context:,}, batch {batch}')
        try:
          cases.append(Case(spec, models[spec.variant], pool, context, batch, n_threads))
        except NoKernelError as error:
          say(f'{spec} is skipped: the native engine has no kernel for {error}')
      others = [LlamaCase(*file, context, batch, n_threads or n_cores()) for file in files]
      cases += others
      say(f'measuring {len(cases)} cases at context {context:,}, batch {batch}')
      while any(len(case.seconds) < tokens for case in cases):
        for case in cases:
          case.take_turn()
      parts = [_parts(case) if isinstance(case, Case) and case.spec.engine == 'xla' else {} for case in cases]
      bandwidth = (before + read_bandwidth()) / 2
      for case, each in zip(cases, parts, strict=True):
        yield _result(case, each, bandwidth, whole, pool)
      for case in others:
        case.close()


@contextmanager
def _peer_files(
  config: ModelConfig, kinds: Sequence[str], scratch: str | None, say: Callable[[str], None]
) -> Iterator[list[tuple[Path, Sizes, str]]]:
  """Yields a file for each type of llama.cpp, with as many parameters as our model."""
  if not kinds:
    yield []
    return
  require_peers()
  sizes = sizes_like(config, n_decoding(config))
  with ExitStack() as stack:
    files = []
    for kind in kinds:
      say(f'writing a model of {sizes.params / 1e6:,.0f} million parameters for llama.cpp in {kind}')
      files.append((stack.enter_context(gguf_file(sizes, kind, scratch)), sizes, kind))
    yield files


def _specs(
  variants: Sequence[str],
  engines: Sequence[str],
  dtypes: Sequence[str],
  cache_dtype: str | None,
  say: Callable[[str], None],
) -> Iterator[Spec]:
  """Yields all cases to measure."""
  if 'native' in engines and (why := why_missing()):
    say(f'the native engine is skipped: {why}')
    engines = [name for name in engines if name != 'native']
    if not engines:
      raise UserError(f'bench decode: the native engine is not available: {why}; use --engines=xla')
  for variant, engine in itertools.product(variants, engines):
    if engine == 'xla':
      yield Spec(variant, engine, 'float32', 'float32')
    else:
      yield from (Spec(variant, engine, dtype, cache_dtype or dtype) for dtype in dtypes)


def _result(case: Case | LlamaCase, parts: dict[str, float], bandwidth: float, whole: int, pool: Pool) -> DecodeTime:
  median, touched = statistics.median(case.seconds), case.bytes_per_step
  turns = [case.seconds[i : i + TURN] for i in range(0, len(case.seconds), TURN)]
  return DecodeTime(
    **dataclasses.asdict(case.spec),
    about=case.about,
    layers=(case.layers, whole),
    context=case.context,
    batch=case.batch,
    params=case.params,
    ms_per_token=1000 * median,
    min_ms=1000 * min(map(statistics.median, turns)),
    tokens=len(case.seconds),
    bytes_per_token=touched,
    bandwidth=bandwidth,
    bandwidth_share=touched / median / bandwidth,
    resident_bytes=_resident(case, pool),
    parts=parts,
  )


def _parts(case: Case) -> dict[str, float]:
  """Returns the median milliseconds of each part of XLA's step."""
  arguments = case.engine.arguments
  programs = part_programs(case.config, arguments, case.sampling.state, case.batch)
  seconds: dict[str, list[float]] = {name: [] for name in programs}
  for _ in range(10):
    for name, program in programs.items():
      begun = time.perf_counter()
      program()
      seconds[name].append(time.perf_counter() - begun)
  times = {name: 1000 * statistics.median(each[1:]) for name, each in seconds.items()}
  call = times.pop(EMPTY)
  return {name: max(0.0, ms - call) for name, ms in times.items()} | {'call': call}


def _resident(case: Case | LlamaCase, pool: Pool) -> int:
  pool.forget()
  for _ in range(_SETTLE // TURN + 1):
    case.take_turn()
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
  lines = [
    f'{result.variant} with {result.about}, {result.dtype}: {result.ms_per_token:.2f} ms per step, '
    f'{times_faster:.1f} times as fast as the slowest',
    f'  context {result.context:,}, batch {result.batch}, {result.cache_dtype} cache, '
    f'{result.params / 1e6:,.1f} million parameters{part}',
    f'  {result.min_ms:.2f} ms in the fastest turn of {result.tokens} steps, '
    f'{result.tokens_per_second:,.1f} tokens per second',
    f'  reads {result.bytes_per_token / 1e6:,.1f} MB per step, {result.bandwidth_share:.0%} of the read bandwidth, '
    f'{result.bandwidth / 1e9:.1f} GB/s',
    f'  {result.resident_bytes / 1e6:,.0f} MB resident after about {_SETTLE} tokens',
  ]
  if parts:
    lines.append(f'  parts run separately, in ms: {parts}')
  return '\n'.join(lines)
