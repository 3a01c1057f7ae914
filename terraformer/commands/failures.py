"""How a command says that it failed."""

import signal
import sys

from terraformer.config import first_line
from terraformer.streams import OutputError
from terraformer.training import status as status_lib


def fail(command: str, what: object, status: int) -> int:
  """Says what went wrong, in a line, and returns the status."""
  print(f'terraformer {command}: {first_line(what)}', file=sys.stderr)
  return status


def fail_output(name: str, error: OutputError) -> int:
  """The same of an output that cannot be written.

  Whoever stopped reading knows that, and gets the status of a process that ends by SIGPIPE.

  Args:
    name: `terraformer`, with the command if one was found.
    error: of the output.
  """
  if error.reader_left:
    return 128 + signal.SIGPIPE
  print(f'{name}: {error}', file=sys.stderr)
  return status_lib.FAILED
