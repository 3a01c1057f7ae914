"""The documentation says what is there: links, names, commands and pictures."""

import ast
import dataclasses
import functools
import importlib
import importlib.util
import posixpath
import re
import shlex
from pathlib import Path

import pytest

import terraformer
from benchmarks.claims import page as claims
from benchmarks.claims.results import Results
from terraformer import cli, config
from terraformer.flags import make_parser

ROOT = Path(__file__).parents[1]
PAGES = sorted(
  path.relative_to(ROOT).as_posix()
  for pattern in ('*.md', 'docs/**/*.md', 'benchmarks/*.md', 'terraformer/pretrained/*.md')
  for path in ROOT.glob(pattern)
)
# What these hold is true of the version that was measured.
WRITTEN_NOW = [page for page in PAGES if not page.startswith('benchmarks/')]


@functools.cache
def text_of(page: str) -> str:
  return (ROOT / page).read_text(encoding='utf-8')


def fences(page: str, language: str) -> list[str]:
  return re.findall(rf'^```{language}\n(.*?)^```', text_of(page), re.DOTALL | re.MULTILINE)


@functools.cache
def draw():
  spec = importlib.util.spec_from_file_location('draw', ROOT / 'docs' / 'draw.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def resolve(name: str) -> object:
  """What a dotted name of the package means, `config.BlockConfig.norm` included."""
  found, words = terraformer, name.split('.')
  for number, word in enumerate(words):
    if dataclasses.is_dataclass(found) and word in {field.name for field in dataclasses.fields(found)}:
      return found
    module = '.'.join(['terraformer', *words[: number + 1]])
    try:
      found = importlib.import_module(module)
    except ModuleNotFoundError:
      found = getattr(found, word)
  return found


def test_every_picture_is_what_the_scripts_draw():
  drawn = {f'{picture.__name__}.svg': picture().svg() for picture in draw().PICTURES} | claims.page(Results.read())[1]
  stored = {path.name: path.read_text(encoding='utf-8') for path in (ROOT / 'docs/pictures').iterdir()}
  assert stored == drawn


def test_the_page_of_the_claims_is_what_the_results_make():
  assert text_of('docs/paper.md') == claims.page(Results.read())[0]


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_to_files_of_the_repository(page):
  targets = re.findall(r'\]\((?!https?:|mailto:|#)([^)#\s]+)', text_of(page))
  missing = [target for target in targets if not (ROOT / posixpath.dirname(page) / target).exists()]
  assert not missing


def test_every_page_is_in_the_navigation():
  navigation = text_of('mkdocs.yml').partition('\nnav:\n')[2]
  listed = set(re.findall(r'(\S+\.md)$', navigation, re.MULTILINE))
  pages = {page.removeprefix('docs/') for page in PAGES if page not in ('README.md', 'benchmarks/README.md')}
  assert listed == pages


@pytest.mark.parametrize('page', WRITTEN_NOW)
def test_gin_names_fields_that_there_are(page):
  names = set(re.findall(r'\bconfig\.(\w+Config)\b(?:\.(\w+))?', text_of(page)))
  for kind, field in names:
    fields = {each.name for each in dataclasses.fields(getattr(config, kind))}
    assert not field or field in fields, f'{kind}.{field}'


@pytest.mark.parametrize('page', WRITTEN_NOW)
def test_commands_have_flags_that_there_are(page):
  parser = make_parser(cli._COMMANDS)
  lines = '\n'.join(fences(page, '')).replace('\\\n', ' ').splitlines()
  found = [re.search(r'(?:^|\| )\s*terraformer (.*?)(?:\s+[#&|>].*)?$', line) for line in lines]
  for command in (each[1] for each in found if each):
    assert parser.parse_args(shlex.split(re.sub(r'\$\w', '0', command))), command


@pytest.mark.parametrize('page', WRITTEN_NOW)
def test_python_imports_what_there_is(page):
  for code in fences(page, 'python'):
    for node in ast.walk(ast.parse(code)):
      if isinstance(node, ast.ImportFrom) and node.module.split('.')[0] == 'terraformer':
        for alias in node.names:
          assert resolve('.'.join([*node.module.split('.')[1:], alias.name])) is not None


def test_every_name_of_the_glossary_is_in_the_code():
  rows = re.findall(r'^\|.*\|.*\|(.*)\|$', text_of('docs/glossary.md').partition('## Words with')[0], re.MULTILINE)
  names = [name for row in rows for name in re.findall(r'`([^`]+)`', row)]
  assert len(names) > 40
  for name in names:
    if not name.startswith('terraformer '):
      assert resolve(name) is not None


def test_every_module_of_the_architecture_is_there():
  names = re.findall(r'`((?:\w+/)*\w+(?:\.py|/))`', text_of('docs/architecture.md'))
  assert len(names) > 100
  homes = (ROOT / 'terraformer', ROOT)
  assert [name for name in names if not any((home / name).exists() for home in homes)] == []


def test_the_readme_can_be_read_in_a_few_minutes():
  assert len(text_of('README.md').splitlines()) <= 125


def test_one_version_is_said_everywhere():
  assert f'\nversion: {terraformer.__version__}\n' in text_of('CITATION.cff')
  assert f'\n## {terraformer.__version__} - ' in text_of('CHANGELOG.md')
