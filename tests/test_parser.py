"""What the parser refuses is said in one line, which names what was meant."""

import pytest

from terraformer import __version__
from terraformer.cli import _COMMANDS, main
from terraformer.flags import Group


def refused(capsys, *arguments):
  with pytest.raises(SystemExit) as ended:
    main(list(arguments))
  assert ended.value.code == 2
  return capsys.readouterr().err


@pytest.mark.parametrize(
  ('arguments', 'sentence'),
  [
    ('decode --bundel=x --input=x', 'decode: unknown option --bundel; did you mean --bundle? See terraformer decode'),
    ('decode --input=x', 'decode: give --bundle; see terraformer decode'),
    ('export', 'export: give --workdir and --output; see terraformer export'),
    ('decode --bundle=x fix this', "decode: unexpected 'fix'; put the text in --input='...'; see terraformer decode"),
    ('describe a.gin', "describe: unexpected 'a.gin'; did you mean --gin_file=a.gin? See terraformer describe"),
    ('export --workdir=x --output=y z', "export: unexpected 'z'; see terraformer export"),
    ('train --workdir=x -q', 'train: unknown option -q; see terraformer train'),
    (
      'decode --bundle=x --top_k=five',
      "decode: --top_k: expected a whole number, found 'five'; see terraformer decode",
    ),
    ('describe --context=-4', "describe: --context: expected at least 1, found '-4'; see terraformer describe"),
    (
      'export --dtype=int4',
      "export: --dtype: expected float32, bfloat16 or int8, found 'int4'; see terraformer export",
    ),
    ('decode --input', 'decode: --input needs a value, as in --input=VALUE; see terraformer decode'),
    ('decode --json=1', 'decode: --json takes no value; see terraformer decode'),
    ('bench speed', "bench: unknown command 'speed'; the commands are attention, decode, input; see terraformer bench"),
    ('bench', 'bench: give one of attention, decode, input; see terraformer bench'),
    (
      'bench decode --varients=ff',
      'bench decode: unknown option --varients; did you mean --variants? See terraformer be',
    ),
  ],
)
def test_a_slip_in_a_command_is_one_line(capsys, arguments, sentence):
  said = refused(capsys, *arguments.split())
  assert said.startswith(f'terraformer {sentence}') and said.endswith(' --help\n') and said.count('\n') == 1


@pytest.mark.parametrize(('given', 'meant'), [('trian', 'train'), ('evalute', 'evaluate'), ('--verion', '--version')])
def test_a_misspelt_command_is_recognized(capsys, given, meant):
  assert f'; did you mean {meant}? See terraformer --help\n' in refused(capsys, given, '--workdir=x')


@pytest.mark.parametrize('text', ['--', '-', '-4', '-x y', '--x y'])
def test_what_only_looks_like_an_option_is_left_to_the_command(capsys, text):
  said = refused(capsys, 'describe', '--context', text)
  assert 'unknown option' not in said


def test_the_version_is_printed(capsys):
  with pytest.raises(SystemExit) as ended:
    main(['--version'])
  assert ended.value.code == 0 and capsys.readouterr().out == f'terraformer {__version__}\n'


COMMANDS = [
  (command.name, *more)
  for command in _COMMANDS
  for more in ([(each.name,) for each in command.commands] if isinstance(command, Group) else [()])
]


@pytest.mark.parametrize('command', COMMANDS, ids=' '.join)
def test_help_shows_gin_files_exactly_where_they_are_taken(capsys, command):
  with pytest.raises(SystemExit):
    main([*command, '--help'])
  text = capsys.readouterr().out
  assert ('--gin_file FILE' in text) == ('--gin_file=gin_configs' in text)
  assert 'Bad input ends with one sentence' in text
