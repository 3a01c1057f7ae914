"""`terraformer bench attention`, `bench decode` and `bench input`."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from terraformer import libraries, values
from terraformer.configure import load_configs
from terraformer.flags import Command, Group, add_gin

# The variants of `bench.decode`, which is not imported here because it imports jax.
_VARIANTS = ('dense', 'ff', 'ff_qkv', 'ff_qkv_output')
# More repetitions are most likely a typo.
_repetitions = values.whole_from(1, 100_000)


def _lengths(text: str) -> tuple[int, ...]:
  return tuple(values.positive(part) for part in text.split(','))


def _attention_flags(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--lengths',
    type=_lengths,
    default=(4096, 16384, 65536),
    metavar='N,N',
    help='in tokens (default: 4096,16384,65536)',
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
    type=_variants,
    default=_VARIANTS,
    metavar='NAME,NAME',
    help='sparse parts to compare: dense, ff, ff_qkv, ff_qkv_output (default: all)',
  )
  parser.add_argument('--layers', type=_layers, metavar='E,D', help='measure a slice of E encoder and D decoder layers')
  parser.add_argument(
    '--dtype',
    default='float32',
    choices=('float32', 'bfloat16'),
    help='type of the weights that are read by row (default: %(default)s)',
  )
  parser.add_argument(
    '--context', type=_lengths, default=(64,), metavar='N,N', help='tokens before the measured ones (default: 64)'
  )
  parser.add_argument('--batch', type=_lengths, default=(1,), metavar='N,N', help='batch sizes, in texts (default: 1)')
  parser.add_argument(
    '--tokens', type=_repetitions, default=36, help='minimum number of measured steps per case (default: %(default)s)'
  )
  parser.add_argument('--scratch', metavar='DIR', help="folder for the temporary file (default: the system's)")
  parser.add_argument('--chart', metavar='FILE', help='write a chart of the decoding times to this PNG file')
  parser.add_argument('--json', action='store_true', help='print one JSON object per variant, context and batch')


def _variants(text: str) -> tuple[str, ...]:
  names = tuple(text.split(','))
  for name in names:
    if name not in _VARIANTS:
      raise values.refused(f'some of {", ".join(_VARIANTS)}', name)
  return names


def _layers(text: str) -> tuple[int, int]:
  encoder, decoder = values.several(text, ',', 'E,D')
  if min(encoder, decoder) < 1:
    raise values.refused('E,D from 1', text)
  return encoder, decoder


def _decode(flags: argparse.Namespace) -> None:
  from terraformer.bench.chart import draw_chart
  from terraformer.bench.decode import as_table, bench_decode

  run, _, _ = load_configs(flags.gin_file or ['gin_configs/models/terraformer_800m.gin'], flags.gin_bindings)
  libraries.cache_compilations()
  measured = bench_decode(
    run.model,
    flags.variants,
    flags.layers,
    flags.dtype == 'bfloat16',
    flags.context,
    flags.batch,
    flags.tokens,
    flags.scratch,
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
  'Compare sparse and dense decoding on this CPU.',
  'Measures a model and its dense twin in turns, with random weights and uniform routing: milliseconds per token, the\n'
  "bytes that a token reads compared with the machine's read bandwidth, resident memory, and the time of each part.\n"
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
