"""`terraformer evaluate`."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from terraformer import libraries, values
from terraformer.commands.decoding import ENGINES, add_decoding, decode_config, note_idle
from terraformer.commands.stored import stored_gin
from terraformer.config import DecodeConfig
from terraformer.configure import load_configs
from terraformer.flags import Command, add_configuration


def _flags(parser: argparse.ArgumentParser) -> None:
  add_configuration(parser)
  parser.add_argument('--workdir', required=True, metavar='DIR', help='folder of the run')
  parser.add_argument(
    '--bundle', metavar='BUNDLE', help="score this bundle of the run's model, in its number types, not a checkpoint"
  )
  parser.add_argument('--split', default='test', choices=('test', 'validation'), help='default: %(default)s')
  parser.add_argument(
    '--limit', type=values.at_most, default=256, help='maximum number of examples (default: %(default)s)'
  )
  parser.add_argument(
    '--examples', type=values.count, default=5, help='number of examples to print (default: %(default)s)'
  )
  parser.add_argument('--best', action='store_true', help='evaluate the best checkpoint (config.CheckpointConfig.best)')
  parser.add_argument('--perplexity', action='store_true', help='compute only the perplexity, without decoding')
  parser.add_argument(
    '--batch_size',
    type=values.at_most,
    metavar='N',
    help='examples to decode together (default: up to 32, and 16,384 tokens)',
  )
  parser.add_argument('--json', action='store_true', help='print one JSON object with all results and texts')
  add_decoding(parser)
  parser.add_argument(
    '--engine', choices=ENGINES, default=ENGINES[0], help='engine for decoding, as for `decode` (default: %(default)s)'
  )


def _evaluate(flags: argparse.Namespace) -> None:
  from terraformer.data.downloads import local_copy
  from terraformer.decode.bundle import FILE_PATTERNS
  from terraformer.eval.evaluate import evaluate
  from terraformer.eval.page import write_page
  from terraformer.eval.report import as_text

  run, decode = None, DecodeConfig()
  if flags.gin_file or flags.gin_bindings:
    run, decode, _ = load_configs(flags.gin_file, flags.gin_bindings, stored_gin(flags.workdir), flags.module)
  decode = decode_config(decode, flags)
  if not flags.perplexity:
    note_idle(decode)
  libraries.cache_compilations()
  bundle = local_copy(flags.bundle, FILE_PATTERNS, needed=('config.json',)) if flags.bundle else None
  chosen = {'decode': None if flags.perplexity else decode, 'batch_size': flags.batch_size, 'best': flags.best}
  chosen |= {'bundle': bundle, 'engine': flags.engine, 'cache_dtype': decode.cache_dtype}
  result = evaluate(Path(flags.workdir), flags.split, flags.limit, run, show_progress=not flags.json, **chosen)
  try:
    print(_as_json(dataclasses.asdict(result)) if flags.json else as_text(result, flags.examples))
  finally:  # keeps the results of a long evaluation even if they cannot be printed
    if result.texts:
      write_page(result, Path(flags.workdir))


def _as_json(result: dict[str, Any]) -> str:
  """Returns JSON with unescaped text; only bytes that are not UTF-8, in names of files, are escaped."""
  return json.dumps(result, ensure_ascii=False).encode(errors='backslashreplace').decode()


EVALUATE = Command(
  'evaluate',
  'Score the newest checkpoint of a run, or its best, on held-out examples.',
  'Prints examples; perplexity, compared with a unigram model; whether the model uses its source (the loss with the\n'
  'sources of other texts, and the number of distinct texts); and the scores of the task: exact match and, for prose,\n'
  "ROUGE, compared with the source's first ten words and, if summaries are longer than a sentence, its first three\n"
  'sentences. Writes each text to DIR/evaluation_SPLIT.jsonl when it is decoded, and the worst, median and best to\n'
  'DIR/evaluation_SPLIT.html. An interrupted evaluation resumes: it does not decode stored texts again. Texts of\n'
  'another step, other data or other decoding settings are not reused; their file is renamed.',
  _flags,
  _evaluate,
)
