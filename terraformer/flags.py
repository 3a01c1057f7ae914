"""The parser of the command line: what every command has, and the flags that several share."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence

_EPILOG = """\
Any value of terraformer/config is set by gin, in files or on the command line, later ones first:
  --gin_file=gin_configs/runs/demo.gin --gin_bindings='config.TrainConfig.steps = 100'
Bad input ends in one sentence and exit status 2, an interruption in 130.
"""
# Flags that are paths.
PATH_FLAGS = (
  'gin_file',
  'workdir',
  'output',
  'bundle',
  'input_file',
  'scratch',
  'chart',
  'checkpoint',
  'config',
  'vocabulary',
  'report',
)


@dataclasses.dataclass(frozen=True)
class Command:
  """One command.

  Attributes:
    name: as it is typed.
    summary: one line, for the list of commands.
    description: what follows the summary in its own help.
    add_flags: gives a parser the flags of the command.
    run: does what the parsed flags ask for; the exit status, None for 0.
  """

  name: str
  summary: str
  description: str
  add_flags: Callable[[argparse.ArgumentParser], None]
  run: Callable[[argparse.Namespace], int | None]

  def add_to(self, subparsers: argparse._SubParsersAction, epilog: str | None = _EPILOG) -> None:
    """Makes the parser of the command; `run` of what it parses is the function."""
    parser = subparsers.add_parser(
      self.name,
      help=self.summary,
      description=f'{self.summary}\n\n{self.description}',
      epilog=epilog,
      formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    self.add_flags(parser)
    parser.set_defaults(run=self.run)


@dataclasses.dataclass(frozen=True)
class Group:
  """Commands of two words that begin with the same one.

  Attributes:
    name: the first word.
    summary: one line, for the list of commands.
    commands: named by their second words.
  """

  name: str
  summary: str
  commands: Sequence[Command]

  def add_to(self, subparsers: argparse._SubParsersAction) -> None:
    """Makes the parsers of its commands."""
    parser = subparsers.add_parser(self.name, help=self.summary)
    below = parser.add_subparsers(dest='what', required=True, metavar='WHAT')
    for command in self.commands:
      command.add_to(below, epilog=None)


def make_parser(commands: Sequence[Command | Group]) -> argparse.ArgumentParser:
  """The parser of these commands; `run` of what it parses is the function of the one that was typed."""
  parser = argparse.ArgumentParser(
    prog='terraformer',
    description='Sparse Transformers: prepare data, train, evaluate, export, and decode on a CPU.',
    epilog=_EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  subparsers = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
  for command in commands:
    command.add_to(subparsers)
  return parser


def add_gin(parser: argparse.ArgumentParser, files: str = 'gin file; repeatable') -> None:
  """The flags that make a configuration; `files` is what the help says of the first."""
  parser.add_argument('--gin_file', action='append', default=[], metavar='FILE', help=files)
  parser.add_argument(
    '--gin_bindings',
    action='append',
    default=[],
    metavar='BINDING',
    help="'config.Class.field = value'; repeatable",
  )


def add_configuration(
  parser: argparse.ArgumentParser, modules: str = 'Python module that defines configs of your own; repeatable'
) -> None:
  """The same, and the modules of the user's that may be in it; `modules` is what the help says of them."""
  add_gin(parser)
  parser.add_argument('--module', action='append', default=[], help=modules)
