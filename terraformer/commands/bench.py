"""`terraformer bench attention`, `bench decode` and `bench input`."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from terraformer import libraries, values
from terraformer.commands.decoding import ENGINES
from terraformer.config import CACHE_DTYPES
from terraformer.configure import load_configs
from terraformer.flags import Command, Group, add_gin

# The variants of `bench.decode`, which is not imported here because it imports jax.
_VARIANTS = ('dense', 'ff', 'ff_qkv', 'ff_qkv_output')
# The types of `bench.peers`.
_PEERS = ('F32', 'Q8_0', 'Q4_0', 'Q4_K', 'TQ2_0')
# More repetitions are most likely a typo.
_repetitions = values.whole_from(1, 100_000)


def _lengths(text: str) -> tuple[int, ...]:
  return tuple(values.positive(part) for part in text.split(','))


def _attention_flags(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--lengths', type=_lengths, default=(4096, 16384, 65536), metavar='N,N', help='tokens (default: 4096,16384,65536)'
  )
  parser.add_argument('--d_model', type=values.positive, default=128, help='width (default: %(default)s)')
  parser.add_argument('--n_heads', type=values.positive, default=2, help='heads (default: %(default)s)')
  parser.add_argument('--n_rounds', type=values.positive, default=2, help='LSH rounds (default: %(default)s)')
  parser.add_argument('--chunk_length', type=values.positive, default=128, help='of LSH (default: %(default)s)')
  parser.add_argument('--repeats', type=_repetitions, default=3, help='measurements per case (default: %(default)s)')
  parser.add_argument(
    '--max_bytes', type=_bytes, default=1e10, help='skip cases that need more memory (default: %(default).0e)'
  )
  parser.add_argument('--json', action='store_true', help='print one JSON object per kind and length')


def _bytes(text: str) -> float:
  value = values.number(text)
  if not value > 0:  # nor nan
    raise values.refused('a number of bytes above 0', text)
  return value


def _attention(flags: argparse.Namespace) -> None:
  from terraformer.bench.attention import as_line, bench_attention

  sizes = ('lengths', 'd_model', 'n_heads', 'n_rounds', 'chunk_length', 'repeats', 'max_bytes')
  for result in bench_attention(**{name: getattr(flags, name) for name in sizes}):
    print(json.dumps(dataclasses.asdict(result)) if flags.json else as_line(result), flush=True)


_ATTENTION = Command(
  'attention',
  'Compare LSH attention with full attention.',
  'Measures one causal layer at several lengths: milliseconds of the forward pass and of training, and memory.',
  _attention_flags,
  _attention,
)


def _decode_flags(parser: argparse.ArgumentParser) -> None:
  add_gin(parser, files='the sparse model; repeatable')
  parser.add_argument(
    '--variants',
    type=_some_of(_VARIANTS),
    default=_VARIANTS,
    metavar='NAME,NAME',
    help='sparse parts to compare: dense, ff, ff_qkv, ff_qkv_output (default: all)',
  )
  parser.add_argument('--layers', type=_layers, metavar='E,D', help='measure a slice of E encoder and D decoder layers')
  parser.add_argument(
    '--engines',
    type=_some_of(ENGINES[1:]),
    default=('xla', 'native'),
    metavar='NAME,NAME',
    help='engines to compare (default: xla,native)',
  )
  parser.add_argument(
    '--dtypes',
    type=_some_of(CACHE_DTYPES),
    default=CACHE_DTYPES,
    metavar='TYPE,TYPE',
    help='types of the weights for the native engine: float32, bfloat16, int8 (default: all); XLA uses float32',
  )
  parser.add_argument(
    '--cache_dtype', choices=CACHE_DTYPES, help='type of the KV cache (default: the type of the weights)'
  )
  parser.add_argument(
    '--threads',
    type=values.whole_from(1, 4096),
    metavar='N',
    help='threads of the native engine (default: one per core)',
  )
  parser.add_argument(
    '--context', type=_lengths, default=(64,), metavar='N,N', help='tokens before the measured ones (default: 64)'
  )
  parser.add_argument('--batch', type=_lengths, default=(1,), metavar='N,N', help='batch sizes, in texts (default: 1)')
  parser.add_argument(
    '--tokens', type=_repetitions, default=36, help='minimum number of measured steps per case (default: %(default)s)'
  )
  parser.add_argument(
    '--peers',
    type=_some_of(_PEERS),
    nargs='?',
    const=_PEERS,
    default=(),
    metavar='TYPE,TYPE',
    help="also measure llama.cpp, with a dense model of the sparsest variant's size, in F32, Q8_0, Q4_0, Q4_K, TQ2_0 "
    '(default: all)',
  )
  parser.add_argument('--scratch', metavar='DIR', help="folder for temporary files (default: the system's)")
  parser.add_argument('--chart', metavar='FILE', help='write a chart of the decoding times to this PNG file')
  parser.add_argument('--json', action='store_true', help='print one JSON object per variant, context and batch')


def _some_of(choices: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
  """Returns a parser of names from `choices`, separated by commas."""

  def parse(text: str) -> tuple[str, ...]:
    names = tuple(text.split(','))
    for name in names:
      if name not in choices:
        raise values.refused(f'some of {", ".join(choices)}', name)
    return names

  return parse


def _layers(text: str) -> tuple[int, int]:
  encoder, decoder = values.several(text, ',', 'E,D')
  if min(encoder, decoder) < 1:
    raise values.refused('E,D from 1', text)
  return encoder, decoder


def _decode(flags: argparse.Namespace) -> None:
  from terraformer.bench.chart import draw_chart, require_writable
  from terraformer.bench.decode import as_table, bench_decode

  run, _, _ = load_configs(flags.gin_file or ['gin_configs/models/terraformer_800m.gin'], flags.gin_bindings)
  if flags.chart:
    require_writable(Path(flags.chart))
  libraries.cache_compilations()
  measured = bench_decode(
    run.model,
    flags.variants,
    flags.layers,
    flags.engines,
    flags.dtypes,
    flags.cache_dtype,
    flags.context,
    flags.batch,
    flags.tokens,
    flags.threads,
    flags.scratch,
    flags.peers,
    say=lambda text: print(text, file=sys.stderr, flush=True),
  )
  results = []
  for result in measured:
    results.append(result)
    if flags.json:
      print(json.dumps(dataclasses.asdict(result)), flush=True)
  try:
    if not flags.json:
      print(as_table(results))
  finally:
    if flags.chart:
      draw_chart(results, Path(flags.chart))


_DECODE = Command(
  'decode',
  'Compare decoding on this CPU: sparse with dense, kernels with XLA.',
  'Measures a model and its dense twin in turns, with random weights and uniform routing: milliseconds per step, the\n'
  "bytes that a step reads compared with the machine's read bandwidth, resident memory, and XLA's time for each part.\n"
  'Writes a temporary file with the weights, as large as the largest variant (--scratch sets its folder).',
  _decode_flags,
  _decode,
)


def _input_flags(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--inputs_length', type=values.positive, default=512, help='in tokens (default: %(default)s)')
  parser.add_argument('--targets_length', type=values.positive, default=114, help='in tokens (default: %(default)s)')
  parser.add_argument('--batch_size', type=values.positive, default=128, help='in examples (default: %(default)s)')
  parser.add_argument(
    '--examples', type=values.positive, default=20_000, help='examples to write and read (default: %(default)s)'
  )
  parser.add_argument('--json', action='store_true', help='print one JSON object')


def _input(flags: argparse.Namespace) -> None:
  from terraformer.bench.input import as_line, bench_input

  result = bench_input(flags.inputs_length, flags.targets_length, flags.batch_size, flags.examples)
  print(json.dumps(dataclasses.asdict(result)) if flags.json else as_line(result))


_INPUT = Command(
  'input',
  'Measure how fast training reads and corrupts prepared text.',
  'Writes windows of random tokens to a temporary folder and reads them in one thread, as training does.',
  _input_flags,
  _input,
)


BENCH = Group('bench', 'Measure a mechanism on this machine.', (_ATTENTION, _DECODE, _INPUT))
