"""Docstrings: an argument or attribute that one describes exists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / 'terraformer'
Function = ast.FunctionDef | ast.AsyncFunctionDef


def described(node: ast.AST, section: str) -> set[str]:
  """The names that a section of a docstring describes; `a, b: text` describes two."""
  found = re.search(rf'^{section}:\n((?:  .*\n|\n)*)', (ast.get_docstring(node) or '') + '\n', re.MULTILINE)
  lines = re.findall(r'^  (\S[^:\n]*):', found[1], re.MULTILINE) if found else []
  return {name.strip().lstrip('*') for line in lines for name in line.split(',')}


def arguments(function: Function) -> set[str]:
  """The names in a function's signature."""
  given = function.args
  variable = [each for each in (given.vararg, given.kwarg) if each]
  return {each.arg for each in [*given.posonlyargs, *given.args, *given.kwonlyargs, *variable]}


def attributes(class_: ast.ClassDef) -> set[str]:
  """The names that a class binds, in its body or in a method, and its methods and properties."""
  bound = {node for node in ast.walk(class_) if isinstance(getattr(node, 'ctx', None), ast.Store)}
  names = {node.attr for node in bound if isinstance(node, ast.Attribute)}
  names |= {node.id for node in bound if isinstance(node, ast.Name)}
  return names | {node.name for node in class_.body if isinstance(node, Function)}


def unknown(source: str) -> Iterator[str]:
  """What docstrings describe that is not there: `SparseFF.__call__: choices`."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, Function):
      yield from (f'{node.name}: {name}' for name in sorted(described(node, 'Args') - arguments(node)))
    if isinstance(node, ast.ClassDef):
      made = [arguments(each) for each in node.body if isinstance(each, Function) and each.name == '__init__']
      yield from (f'{node.name}: {name}' for name in sorted(described(node, 'Attributes') - attributes(node)))
      yield from (f'{node.name}: {name}' for name in sorted(described(node, 'Args') - set().union(*made)))


def test_what_a_docstring_describes_is_there():
  found = []
  for path in sorted(PACKAGE.rglob('*.py')):
    found += [f'{path.relative_to(PACKAGE)}: {each}' for each in unknown(path.read_text(encoding='utf-8'))]
  assert not found


@pytest.mark.parametrize(
  ('source', 'expected'),
  [
    ('def f(x, *, y):\n  """F.\n\n  Args:\n    x, y: numbers.\n      note: more.\n  """', []),
    (
      'def f(x, *, y):\n  """F.\n\n  Args:\n    x: a number.\n    z: another.\n\n  Returns:\n    w: one.\n  """',
      ['f: z'],
    ),
    ('class C:\n  """C.\n\n  Args:\n    x: a number.\n  """\n  def __init__(self, y): ...', ['C: x']),
    ('class C:\n  """C.\n\n  Attributes:\n    x: a number.\n    y: another.\n  """\n  x: int', ['C: y']),
  ],
)
def test_names_are_found(source, expected):
  assert list(unknown(source)) == expected
