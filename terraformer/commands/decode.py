"""`terraformer decode`."""

import argparse

from terraformer import interrupts, libraries, values
from terraformer.commands.decoding import add_decoding, add_engine, decode_config, note_idle
from terraformer.config import UserError
from terraformer.configure import load_configs
from terraformer.flags import Command, add_configuration


class _StandardInput(argparse.Action):
  """Takes `-`, and says where a text belongs."""

  def __call__(self, parser, namespace, values, option_string=None):
    if values not in (None, '-'):
      parser.error(f"unexpected {values!r:.80}; put the text in --input='...'")
    setattr(namespace, self.dest, values)


def _flags(parser: argparse.ArgumentParser) -> None:
  add_configuration(parser)
  parser.add_argument(
    '--bundle', required=True, metavar='BUNDLE', help='folder written by `export`, `technical_english`, or an address'
  )
  parser.add_argument('--input', metavar='TEXT', help='the prompt')
  parser.add_argument('--input_file', metavar='FILE', help='a UTF-8 text file, or .jsonl with one object per line')
  parser.add_argument('stdin', nargs='?', action=_StandardInput, metavar='-', help='read the standard input')
  parser.add_argument('--field', default='inputs', help='field with the prompt in a .jsonl file (default: %(default)s)')
  add_decoding(parser)
  add_engine(parser)
  parser.add_argument(
    '--batch_size', type=values.at_most, default=1, metavar='N', help='lines of a .jsonl file to decode together'
  )
  parser.add_argument('--verify', action='store_true', help='compare all weights with their checksums first')
  parser.add_argument('--json', action='store_true', help='print one JSON object per line: input, output, stats')
  parser.add_argument(
    '--stats',
    action='store_true',
    help='print the engine, the time to the first token, and the time per token after it',
  )


def _decode(flags: argparse.Namespace) -> None:
  with interrupts.by_signal():
    from terraformer.decode.decoder import Decoder
    from terraformer.decode.source import read_prompts
    from terraformer.decode.terminal import write_all

  _, decode, _ = load_configs(flags.gin_file, flags.gin_bindings, modules=flags.module)
  for binding in flags.gin_bindings:
    if 'config.DecodeConfig.' not in binding:
      raise UserError(f'--gin_bindings {binding!r}: set only fields of DecodeConfig; the bundle fixes all others')
  decode = decode_config(decode, flags)
  note_idle(decode)
  libraries.cache_compilations()
  decoder = Decoder.open(flags.bundle, flags.verify or None, flags.engine, flags.threads)
  prompts = read_prompts(flags.input, flags.input_file, flags.stdin, flags.field, decoder.bundle.continues)
  write_all(decoder, prompts, decode, flags.batch_size, flags.json, flags.stats)


DECODE = Command(
  'decode',
  "Write text with a bundle, token by token, on this machine's CPU.",
  'The prompt is a text (--input), a file (--input_file; each line of a .jsonl file is a prompt) or, for `-`, the\n'
  'standard input. A model that was trained on pairs reads it as its source. A language model continues it and prints\n'
  'only the continuation; its prompt may be empty. TensorFlow is not needed.\n'
  'The first call compiles the model; later ones load the program from ~/.cache/terraformer (TERRAFORMER_CACHE).',
  _flags,
  _decode,
)
