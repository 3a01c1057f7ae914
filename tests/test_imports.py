"""Imports go one way, and modules stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / 'terraformer'
FILES = sorted(ROOT.rglob('*.py'))

# What each part of the package may import of the others.
ALLOWED = {
  'config': set(),
  'files': {'paths'},
  'ops': {'config'},
  'layers': {'config', 'ops'},
  'models': {'config', 'ops', 'layers'},
  'data': {'config', 'files', 'interrupts', 'modules', 'paths', 'streams'},
  'training': {'config', 'files', 'ops', 'layers', 'models', 'data', 'paths', 'tpu'},
  'native': set(),
  'decode': {'config', 'ops', 'layers', 'models', 'native', 'data', 'paths'},
  'exporting': {'config', 'models', 'data', 'training', 'decode'},
  'serving': {'config', 'data', 'decode', 'models', 'native', 'ops'},
  'trax': {'config'},
  'importing': {'config', 'data', 'decode', 'files', 'gin_text', 'paths', 'training', 'trax'},
  'eval': {'config', 'files', 'models', 'data', 'training', 'decode', 'paths'},
  'describe': {'config', 'models'},
  'pod': {'config', 'layers', 'models', 'training'},
  'bench': {'config', 'files', 'ops', 'layers', 'models', 'data', 'decode', 'native', 'paths'},
  'flags': {'config'},
  'values': set(),
  'gin_errors': {'config'},
  'configure': {'config', 'gin_errors', 'gin_files'},
  'commands': {
    'config',
    'configure',
    'data',
    'training',
    'decode',
    'exporting',
    'importing',
    'eval',
    'serving',
    'describe',
    'pod',
    'bench',
    'flags',
    'values',
    'files',
    'interrupts',
    'libraries',
    'paths',
    'streams',
  },
  'interrupts': set(),
  'modules': {'config'},
  'libraries': {'paths', 'tpu'},
  'streams': set(),
  'paths': {'config'},
  'tpu': set(),
  'gin_files': {'config'},
  'cli': {
    '__version__',
    'commands',
    'config',
    'configure',
    'files',
    'flags',
    'interrupts',
    'libraries',
    'modules',
    'paths',
    'streams',
    'training',
  },
  '__main__': {'cli', 'interrupts', 'paths', 'streams'},
  'gin_text': {'config'},
  'api': {'config', 'eval', 'exporting', 'gin_text', 'importing', 'training'},
  '__init__': {'api', 'config', 'configure', 'decode', 'models'},  # when a name is used, and for type checkers
}
TENSORFLOW = {'tensorflow', 'tensorflow_text', 'tensorflow_datasets', 'seqio'}


def imports(path: Path) -> set[str]:
  """Dotted names of every module that a file imports, inside functions as well."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      found |= {f'{node.module}.{alias.name}' for alias in node.names}
  return found


def part(path: Path) -> str:
  return path.relative_to(ROOT).parts[0].removesuffix('.py')


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_place_allows(path):
  ours = {name.split('.')[1] for name in imports(path) if name.startswith('terraformer.')}
  assert ours - {part(path)} <= ALLOWED[part(path)]


def test_tensorflow_and_seqio_live_in_the_modules_of_tasks_alone():
  homes = {path.relative_to(ROOT) for path in FILES if {name.split('.')[0] for name in imports(path)} & TENSORFLOW}
  assert homes == {Path('data/tasks.py'), Path('data/registered.py')}


def test_gin_lives_in_the_module_that_makes_configurations_alone():
  homes = {path.relative_to(ROOT) for path in FILES if 'gin' in {name.split('.')[0] for name in imports(path)}}
  assert homes == {Path('configure.py')}


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_at_most_400_lines(path):
  assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize('name', ['train.py', 'decode.py'])
def test_a_script_at_the_top_is_under_60_lines(name):
  assert len((ROOT.parent / name).read_text().splitlines()) < 60
