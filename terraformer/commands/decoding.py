"""The flags that choose how text is written, of every command that writes some."""

import argparse
import dataclasses

from terraformer import values
from terraformer.config import DecodeConfig

# Flags that are fields of DecodeConfig by the same name.
DECODE_FLAGS = (
  'max_tokens',
  'temperature',
  'top_k',
  'top_p',
  'seed',
  'beams',
  'length_penalty',
  'no_repeat_ngram',
  'bfloat16_cache',
)


def add_decoding(parser: argparse.ArgumentParser) -> None:
  """The flags of `DECODE_FLAGS`, and `stop`."""
  parser.add_argument('--max_tokens', type=values.whole, help='tokens to write at most (DecodeConfig.max_tokens)')
  parser.add_argument(
    '--temperature', type=values.number, help='0 takes the likeliest token (DecodeConfig.temperature)'
  )
  parser.add_argument('--top_k', type=values.whole, help='draw from so many likeliest tokens (DecodeConfig.top_k)')
  parser.add_argument('--top_p', type=values.number, help='draw from the likeliest that have this probability together')
  parser.add_argument('--seed', type=values.whole, help='of the draws, which each text begins anew (DecodeConfig.seed)')
  parser.add_argument('--beams', type=values.whole, help='hypotheses of beam search; the text comes in one piece')
  parser.add_argument('--length_penalty', type=values.number, help='of beam search: higher for longer texts')
  parser.add_argument('--no_repeat_ngram', type=values.whole, metavar='N', help='write no sequence of N tokens twice')
  parser.add_argument('--stop', action='append', metavar='TEXT', help='end before this text; repeatable')
  parser.add_argument(
    '--bfloat16_cache', action='store_const', const=True, help='keep keys and values in half the memory; slower'
  )


def decode_config(decode: DecodeConfig, flags: argparse.Namespace) -> DecodeConfig:
  """The config with the flags that were given in the place of its fields."""
  given = {name: getattr(flags, name) for name in DECODE_FLAGS if getattr(flags, name) is not None}
  return dataclasses.replace(decode, **given | ({'stop': tuple(flags.stop)} if flags.stop else {}))
