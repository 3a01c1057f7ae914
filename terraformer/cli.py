"""The command line: parses flags and runs one command."""

import argparse
import sys

from terraformer import __version__, interrupts, libraries, paths, streams
from terraformer.commands.bench import BENCH
from terraformer.commands.compile import COMPILE
from terraformer.commands.decode import DECODE
from terraformer.commands.describe import DESCRIBE
from terraformer.commands.evaluate import EVALUATE
from terraformer.commands.export import EXPORT
from terraformer.commands.failures import fail, fail_output
from terraformer.commands.importing import IMPORT
from terraformer.commands.prepare import PREPARE, VOCAB
from terraformer.commands.serve import SERVE
from terraformer.commands.train import TRAIN
from terraformer.config import UserError
from terraformer.configure import load_configs
from terraformer.files import UnwritableError, writing
from terraformer.flags import PATH_FLAGS, make_parser
from terraformer.modules import import_modules
from terraformer.training import status as status_lib

__all__ = ['load_configs', 'main']

_COMMANDS = (PREPARE, VOCAB, TRAIN, EVALUATE, EXPORT, IMPORT, DECODE, SERVE, DESCRIBE, COMPILE, BENCH)
_NO_MEMORY = 'this machine does not have enough memory; use a smaller batch, shorter examples or a smaller model'


def main(arguments: list[str] | None = None) -> int:
  """Runs one command and returns its exit status."""
  name = 'terraformer'
  try:
    try:
      flags = make_parser(_COMMANDS, __version__).parse_args(arguments)
      name = f'{name} {flags.command}'
      return _run(flags)
    finally:
      sys.stdout.flush()  # otherwise Python flushes it too late to report an error
  except streams.OutputError as error:
    return fail_output(name, error)


def _run(flags: argparse.Namespace) -> int:
  libraries.quiet()
  try:
    with interrupts.heard(), writing('a temporary file'):
      paths.require_given({name: getattr(flags, name, None) for name in PATH_FLAGS})
      if flags.command != 'prepare':  # `prepare` imports them in the process that has TensorFlow
        import_modules(getattr(flags, 'module', []))
      return flags.run(flags) or 0
  except UserError as error:
    return fail(flags.command, error, status_lib.BAD_INPUT)
  except UnwritableError as error:
    return fail(flags.command, error, status_lib.FAILED)
  except MemoryError:
    return fail(flags.command, _NO_MEMORY, status_lib.BAD_INPUT)
  except RuntimeError as error:  # the base class of XLA's error, which needs jax, which may not be imported
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return fail(flags.command, _NO_MEMORY, status_lib.BAD_INPUT)
  except interrupts.Terminated:
    return fail(flags.command, 'interrupted', status_lib.RESTART)
  except KeyboardInterrupt:
    return fail(flags.command, 'interrupted', status_lib.INTERRUPTED)


if __name__ == '__main__':
  sys.exit(main())
