"""`terraformer serve`."""

import argparse
import contextlib
import os
import sys
from pathlib import Path

from terraformer import interrupts, libraries, values
from terraformer.commands.decoding import add_engine
from terraformer.config import CACHE_DTYPES, UserError
from terraformer.flags import Command

_SHIPPED = 'technical_english'
_SHIPPED_TASKS = ('summarize', 'fix')
_LOCAL = ('127.0.0.1', 'localhost', '::1')
_LEVELS = ('debug', 'info', 'warning', 'error')


def _flags(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--bundle',
    default=_SHIPPED,
    metavar='BUNDLE',
    help='folder written by `export`, or an address (default: %(default)s, the model that ships)',
  )
  parser.add_argument(
    '--task',
    action='append',
    metavar='WORD',
    help='a task of the model, whose prompts begin with `WORD: `; repeatable, the first is that of /v1/summaries',
  )
  parser.add_argument('--host', default='127.0.0.1', help='address to listen at (default: %(default)s)')
  parser.add_argument(
    '--port', type=values.whole_from(0, 65535), default=8000, metavar='N', help='port, 0 for any (default: %(default)s)'
  )
  parser.add_argument(
    '--api_key',
    default=os.environ.get('TERRAFORMER_API_KEY', ''),
    metavar='KEY',
    help='key that requests must carry; better in the variable TERRAFORMER_API_KEY, which other users do not see',
  )
  parser.add_argument(
    '--max_concurrent',
    type=values.whole_from(1, 1024),
    default=8,
    metavar='N',
    help='texts to decode side by side (default: %(default)s)',
  )
  parser.add_argument(
    '--max_queue',
    type=values.whole_from(0, 1_000_000),
    default=256,
    metavar='N',
    help='texts that may wait; more are refused with status 429 (default: %(default)s)',
  )
  parser.add_argument(
    '--max_tokens', type=values.positive, metavar='N', help='the most new tokens of a text (default: as in training)'
  )
  parser.add_argument(
    '--max_seconds',
    type=values.whole_from(1, 86400),
    default=300,
    metavar='N',
    help='the most time of a request, waiting included (default: %(default)s)',
  )
  parser.add_argument(
    '--max_megabytes',
    type=values.whole_from(1, 1000),
    default=10,
    metavar='N',
    help='the longest body of a request, a file included (default: %(default)s)',
  )
  parser.add_argument('--cache_dtype', choices=CACHE_DTYPES, default=CACHE_DTYPES[0], help='type of the KV cache')
  add_engine(parser)
  parser.add_argument('--log_level', choices=_LEVELS, default='info', help='what to log (default: %(default)s)')
  parser.add_argument('--log_file', metavar='FILE', help='file to append the log to (default: standard error)')
  parser.add_argument('--log_text', action='store_true', help='log prompts and texts too')


def _serve(flags: argparse.Namespace) -> None:
  try:
    with interrupts.by_signal():
      from terraformer.serving import server
  except ModuleNotFoundError as error:
    if (error.name or '').startswith('terraformer'):
      raise
    raise UserError(
      f"this command needs {error.name}; install what it needs with: pip install 'terraformer-jax[serve]'"
    ) from error
  with interrupts.by_signal():
    from terraformer.decode.decoder import Decoder
    from terraformer.serving.log import Log
    from terraformer.serving.scheduler import Scheduler
    from terraformer.serving.service import Service
    from terraformer.serving.settings import Settings

  with (
    contextlib.closing(server.bind(flags.host, flags.port)) as bound,
    contextlib.closing(Log(flags.log_level, Path(flags.log_file) if flags.log_file else None)) as log,
  ):
    libraries.cache_compilations()
    decoder = Decoder.open(flags.bundle, engine=flags.engine, n_threads=flags.threads)
    settings = Settings(
      name=Path(flags.bundle).name or Path(flags.bundle).resolve().name or 'model',
      tasks=tuple(flags.task or (_SHIPPED_TASKS if flags.bundle == _SHIPPED else ())),
      api_key=flags.api_key,
      cache_dtype=flags.cache_dtype,
      max_tokens=flags.max_tokens,
      seconds=flags.max_seconds,
      body_bytes=flags.max_megabytes * 1_000_000,
      logs_text=flags.log_text,
    )
    scheduler = Scheduler(decoder, flags.max_concurrent, flags.max_queue, cache_dtype=flags.cache_dtype)
    print(f'{settings.name} is at {server.address_of(bound)} (Ctrl-C ends it)', flush=True)
    if not flags.api_key and flags.host not in _LOCAL:
      print('note: whoever reaches this address can use the model; set TERRAFORMER_API_KEY', file=sys.stderr)
    server.serve(Service(settings, decoder.bundle, scheduler, log), bound)


SERVE = Command(
  'serve',
  'Serve a bundle over HTTP: the API of OpenAI, and a page for people.',
  'The page is at /, the API at /v1, its description at /docs, and metrics at /metrics. Needs the extra `serve`:\n'
  "  pip install 'terraformer-jax[serve]'\n"
  'SIGTERM lets running texts end, and refuses new requests meanwhile.',
  _flags,
  _serve,
)
