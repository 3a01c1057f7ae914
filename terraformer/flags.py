"""The parser of the command line, and flags that several commands share."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence

_EPILOG = """\
Gin files and bindings set any field of terraformer/config; later ones take precedence:
  --gin_file=gin_configs/runs/demo.gin --gin_bindings='config.TrainConfig.steps = 100'
Bad input ends with one sentence and exit status 2, an interruption with 130.
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
    name: name on the command line.
    summary: one line for the list of commands.
    description: text after the summary in the command's own help.
    add_flags: adds the command's flags to a parser.
    run: runs the command with the parsed flags, and returns the exit status, or None for 0.
  """

  name: str
  summary: str
  description: str
  add_flags: Callable[[argparse.ArgumentParser], None]
  run: Callable[[argparse.Namespace], int | None]

  def add_to(self, subparsers: argparse._SubParsersAction, epilog: str | None = _EPILOG) -> None:
    """Adds the command's parser; its parsed flags have `run`, the command's function."""
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
  """Commands of two words with the same first word.

  Attributes:
    name: the first word.
    summary: one line for the list of commands.
    commands: the commands, named by their second words.
  """

  name: str
  summary: str
  commands: Sequence[Command]

  def add_to(self, subparsers: argparse._SubParsersAction) -> None:
    """Adds the parsers of all commands in the group."""
    parser = subparsers.add_parser(self.name, help=self.summary)
    below = parser.add_subparsers(dest='what', required=True, metavar='WHAT')
    for command in self.commands:
      command.add_to(below, epilog=None)


def make_parser(commands: Sequence[Command | Group]) -> argparse.ArgumentParser:
  """Returns the parser of these commands; the parsed flags have `run`, the function of the given command."""
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
  """Adds the flags that make a configuration; `files` is the help text of `--gin_file`."""
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
  """Adds the flags of `add_gin`, and `--module` for the user's modules; `modules` is the help text of `--module`."""
  add_gin(parser)
  parser.add_argument('--module', action='append', default=[], help=modules)
