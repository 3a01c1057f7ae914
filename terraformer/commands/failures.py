"""Reports that a command failed."""

import signal
import sys

from terraformer.config import first_line
from terraformer.streams import OutputError
from terraformer.training import status as status_lib


def fail(command: str, what: object, status: int) -> int:
  """Prints one line that says what went wrong, and returns the status."""
  print(f'terraformer {command}: {first_line(what)}', file=sys.stderr)
  return status


def fail_output(name: str, error: OutputError) -> int:
  """Reports that the output cannot be written, and returns the status.

  If the reader of a pipe has ended, prints nothing and returns the status of a process that SIGPIPE ends.

  Args:
    name: `terraformer`, followed by the command if it is known.
    error: the error of the output.
  """
  if error.reader_left:
    return 128 + signal.SIGPIPE
  print(f'{name}: {error}', file=sys.stderr)
  return status_lib.FAILED
