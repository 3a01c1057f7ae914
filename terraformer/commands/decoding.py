"""The decoding flags, shared by all commands that generate text."""

import argparse
import dataclasses
import sys

from terraformer import values
from terraformer.config import CACHE_DTYPES, DecodeConfig

# The engines of `decode.engine`, which is not imported here because it imports JAX.
ENGINES = ('auto', 'native', 'xla')
# Flags for the fields of DecodeConfig with the same name: the type and help of each.
_FIELD_FLAGS = {
  'max_tokens': (values.whole, 'maximum number of new tokens'),
  'temperature': (values.number, 'sampling temperature; 0, the default, takes the likeliest token'),
  'top_k': (values.whole, 'sample from the K likeliest tokens; 0, the default, samples from all'),
  'top_p': (values.number, 'sample from the likeliest tokens whose probabilities add up to P'),
  'seed': (values.whole, 'seed for random tokens; every text starts from it'),
  'beams': (values.whole, 'number of beams of beam search; the text is printed when it is complete'),
  'length_penalty': (values.number, 'length penalty of beam search; a higher value favors longer texts'),
  'no_repeat_ngram': (values.whole, 'block tokens that would repeat a sequence of N tokens'),
}
_OF_SAMPLING = ('top_k', 'top_p', 'seed')
DECODE_FLAGS = (*_FIELD_FLAGS, 'cache_dtype')


def add_decoding(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of `DECODE_FLAGS`, and `--stop`."""
  for name, (kind, text) in _FIELD_FLAGS.items():
    parser.add_argument(f'--{name}', type=kind, help=f'{text} (config.DecodeConfig.{name})')
  parser.add_argument('--stop', action='append', metavar='TEXT', help='end the text before this string; repeatable')
  parser.add_argument(
    '--cache_dtype', choices=CACHE_DTYPES, help='type of the KV cache: bfloat16 halves its memory, int8 quarters it'
  )
  parser.add_argument(
    '--bfloat16_cache',
    action='store_const',
    const='bfloat16',
    dest='cache_dtype',
    help='old name of --cache_dtype=bfloat16',
  )


def add_engine(parser: argparse.ArgumentParser) -> None:
  """Adds `--engine` and `--threads`."""
  parser.add_argument(
    '--engine',
    choices=ENGINES,
    default=ENGINES[0],
    help='native: compiled kernels; xla: the slower reference; auto: native if possible (default: %(default)s)',
  )
  parser.add_argument(
    '--threads',
    type=values.whole_from(1, 4096),
    metavar='N',
    help='maximum number of threads of the native engine (default: one per core, which is also the limit)',
  )


def note_idle(config: DecodeConfig) -> None:
  """Prints a note about each setting that has no effect without another."""
  idle = {name: 'at temperature 0; set --temperature' for name in _OF_SAMPLING if config.temperature == 0}
  idle |= {'length_penalty': 'without beam search; set --beams'} if config.beams == 1 else {}
  usual = DecodeConfig()
  for name, why in idle.items():
    if getattr(config, name) != getattr(usual, name):
      print(f'note: --{name} has no effect {why}', file=sys.stderr)


def decode_config(decode: DecodeConfig, flags: argparse.Namespace) -> DecodeConfig:
  """Returns the config with its fields replaced by the given flags."""
  given = {name: getattr(flags, name) for name in DECODE_FLAGS if getattr(flags, name) is not None}
  return dataclasses.replace(decode, **given | ({'stop': tuple(flags.stop)} if flags.stop else {}))
