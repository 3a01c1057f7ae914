"""The command `terraformer`, also available as `python -m terraformer`."""

import os
import sys

if __name__ == '__main__' and not sys.flags.safe_path:
  # `python -m` searches the working folder first, where files may have the names of libraries.
  sys.path.append(sys.path.pop(0))

from terraformer import interrupts, streams  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
  """Runs one command and returns its exit status, or ends the process with it."""
  streams.secure()
  with interrupts.by_signal():
    from terraformer import cli
  given = sys.argv[1:] if arguments is None else arguments
  status = cli.main(given)
  if given[:1] in (['decode'], ['serve']):
    _leave(status)
  return status


def _leave(status: int) -> None:
  """Ends the process at once, however the command ended.

  A text may end while a step is being computed, by threads that read the mapped bundle. Python would tear down
  libraries, gigabytes of arrays and the bundle one by one beside these threads; the system ends all of it together.
  """
  from terraformer import paths

  sys.stdout.flush()
  sys.stderr.flush()
  paths.remove_links()
  os._exit(status)


if __name__ == '__main__':
  sys.exit(main())
