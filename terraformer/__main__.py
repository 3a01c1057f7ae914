"""The command `terraformer`, also available as `python -m terraformer`."""

import sys

if __name__ == '__main__' and not sys.flags.safe_path:
  # `python -m` searches the working folder first, where files may have the names of libraries.
  sys.path.append(sys.path.pop(0))

from terraformer import interrupts, streams  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
  """Runs one command and returns its exit status."""
  streams.secure()
  with interrupts.by_signal():
    from terraformer import cli
  return cli.main(arguments)


if __name__ == '__main__':
  sys.exit(main())
