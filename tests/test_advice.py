"""What a message advises can be pasted: it names the whole flag."""

import ast
import re
import shlex
from pathlib import Path

import pytest

import terraformer
from terraformer.config import CheckpointConfig, InitFromConfig, UserError, words
from terraformer.configure import load_configs

PACKAGE = Path(terraformer.__file__).parent
# Setting a field in words (`set TrainConfig.steps`) or as a bare binding (`TrainConfig.steps = 1`).
ADVICE = re.compile(
  r'(?<![\w.{}/@])((set|add|to|with|turn|choose)\s+)?(\w+Config\.\w+)\s*(?P<equals>=(?!=))?', re.IGNORECASE
)
TABLES = {'config/renames.py'}  # old and new names, which are gin text


def literals(tree):
  """Every string of a module that is no docstring, and the texts of f-strings, each with its line."""
  documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  docstrings = {
    id(node.body[0].value)
    for node in ast.walk(tree)
    if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
  }
  within = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
  for node in ast.walk(tree):
    if isinstance(node, ast.JoinedStr):
      yield node.lineno, ''.join(part.value if isinstance(part, ast.Constant) else '{}' for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (docstrings | within):
      yield node.lineno, node.value


def test_no_message_advises_a_field_without_its_flag():
  found = []
  for path in sorted(PACKAGE.rglob('*.py')):
    name = str(path.relative_to(PACKAGE))
    for line, text in literals(ast.parse(path.read_text())) if name not in TABLES else ():
      found += [f'{name}:{line}: {match[0]}' for match in ADVICE.finditer(text) if match[1] or match['equals']]
  assert not found


@pytest.mark.parametrize(
  'text', ['set TrainConfig.steps', 'train with CheckpointConfig.best = True', 'add it to InitFromConfig.fresh', 'a.b']
)
def test_such_advice_is_found(text):
  assert any(match[1] or match['equals'] for match in ADVICE.finditer(text)) == (text != 'a.b')


@pytest.mark.parametrize(
  ('field', 'value', 'expected'),
  [
    ('CheckpointConfig.best', 'True', True),
    ('CheckpointConfig.permanent_directory', repr("it's $HOME `here` \\"), "it's $HOME `here` \\"),
    ('CheckpointConfig.permanent_directory', repr('a b'), 'a b'),
  ],
)
def test_a_shell_and_gin_read_the_flag_back(field, value, expected):
  (given,) = shlex.split(words.flag(field, value))
  run = load_configs([], [given.removeprefix('--gin_bindings=')])[0]
  assert getattr(run.train.checkpoints, field.rpartition('.')[2]) == expected


def test_a_sentence_of_the_package_can_be_pasted():
  with pytest.raises(UserError) as told:
    InitFromConfig()
  assert '--gin_bindings="config.InitFromConfig.workdir = \'RUN\'"' in str(told.value)
  assert CheckpointConfig().best is False
