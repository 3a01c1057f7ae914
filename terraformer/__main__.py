"""The command `terraformer`, which is `python -m terraformer` as well."""

import sys

from terraformer import interrupts, streams


def main(arguments: list[str] | None = None) -> int:
  """Runs one command and returns its exit status."""
  streams.secure()
  with interrupts.by_signal():
    from terraformer import cli
  return cli.main(arguments)


if __name__ == '__main__':
  sys.exit(main())
