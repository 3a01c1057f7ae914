"""The parser of the command line, and flags that several commands share."""

import argparse
import dataclasses
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from terraformer.config import UserError, words

_GIN = """\
Gin files and bindings set any field of terraformer/config; later ones take precedence:
  --gin_file=gin_configs/runs/demo.gin --gin_bindings='config.TrainConfig.steps = 100'
"""
_STATUS = 'Bad input ends with one sentence and exit status 2, an interruption with 130.\n'
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


class Parser(argparse.ArgumentParser):
  """A parser whose errors are one line, and name what a misspelt option or command resembles."""

  def error(self, message: str) -> NoReturn:
    """Prints one line and exits with status 2."""
    sentence = self._choices() if message.startswith('the following') and self._subparsers else _in_words(message)
    more = f' See {self.prog} --help' if sentence.endswith('?') else f'; see {self.prog} --help'
    self.exit(2, f'{UserError(f"{self.prog}: {sentence}{more}")}\n')

  def parse_known_args(self, args=None, namespace=None):
    """Refuses what the command does not know before argparse reports what is missing."""
    given = list(sys.argv[1:] if args is None else args)
    for option in self._options(given):
      known = [name for name in self._option_string_actions if name.startswith('--')]
      if not any(name == option or name.startswith(option) for name in [*known, '-h']):
        self.error(f'unknown option {option}{_did_you_mean(option, known)}')
    parsed, extra = super().parse_known_args(given, namespace)
    if extra:
      is_gin = extra[0].endswith('.gin') and '--gin_file' in self._option_string_actions
      self.error(f'unexpected {extra[0]!r}{f"; did you mean --gin_file={extra[0]}?" if is_gin else ""}')
    return parsed, extra

  def _choices(self) -> str:
    return f'give one of {", ".join(self._subparsers._group_actions[0].choices)}'

  def _options(self, given: Sequence[str]) -> Iterator[str]:
    """Yields the options among the arguments, without their values; those behind a command are the command's."""
    for text in given:
      name = text.partition('=')[0]
      if text == '--' or (self._subparsers is not None and not text.startswith('-')):
        return
      if re.match('-[^0-9. ]', text) and ' ' not in name:  # argparse takes other texts as values
        yield name


def _did_you_mean(name: str, known: Sequence[str]) -> str:
  found = words.resembling(name, known)
  return f'; did you mean {words.any_of(found)}?' if found else ''


def _in_words(message: str) -> str:
  """Returns one of argparse's sentences in the words of this program."""
  name, found = '', re.fullmatch(r'argument (\S+): (.*)', message, re.DOTALL)
  if found:
    name, message = found[1].split('/')[-1], found[2]
  if choice := re.fullmatch(r'invalid choice: (.*) \(choose from (.*)\)', message, re.DOTALL):
    given, known = choice[1].strip("'"), choice[2].replace("'", '').split(', ')
    if name.startswith('-'):
      return f'{name}: expected {words.any_of(known)}, found {given!r:.40}'
    return f'unknown command {given!r:.40}; {words.meant(given, known, "the commands are")}'
  if missing := re.fullmatch('the following arguments are required: (.*)', message):
    return f'give {words.any_of(missing[1].split(", "), "and")}'
  if message == 'expected one argument':
    return f'{name} needs a value, as in {name}=VALUE'
  if message.startswith('ignored explicit argument'):
    return f'{name} takes no value'
  return f'{name}: {message}' if name else message


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

  def add_to(self, subparsers: argparse._SubParsersAction) -> None:
    """Adds the command's parser; its parsed flags have `run`, the command's function."""
    parser = subparsers.add_parser(
      self.name,
      help=self.summary,
      description=f'{self.summary}\n\n{self.description}',
      epilog=_STATUS,
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
      command.add_to(below)


def make_parser(commands: Sequence[Command | Group], version: str = '') -> argparse.ArgumentParser:
  """Returns the parser of these commands; the parsed flags have `run`, the function of the given command."""
  parser = Parser(
    prog='terraformer',
    description='Sparse Transformers: prepare data, train, evaluate, export, and decode on a CPU.',
    epilog=_GIN + _STATUS,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--version', action='version', version=f'terraformer {version}')
  subparsers = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
  for command in commands:
    command.add_to(subparsers)
  return parser


def add_gin(parser: argparse.ArgumentParser, files: str = 'gin file; repeatable') -> None:
  """Adds the flags that make a configuration; `files` is the help text of `--gin_file`."""
  parser.epilog = f'{_GIN}{parser.epilog or ""}'
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
