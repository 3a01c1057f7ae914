"""Files and folders have whatever names the system allows, or are links, and every command takes them."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from terraformer.cli import main
from terraformer.exporting import export
from terraformer.flags import PATH_FLAGS
from terraformer.paths import cache_folder, make_folder, plain, printable
from terraformer.training import checkpoint
from tests.prepared import TINY_GIN, sentences

# Of patterns, URLs, shells, formulas and escapes, of another script, of two lines, and a byte that is not UTF-8.
NAME = 'a b%20#?&[x]*{y}~$z\\w$\'"`\\n;<|>é日本\nline\udcff'
PLAIN_NAMES = [' ', '日本', '-dash']
NAMES = [*'#?%*[\'"\\$&|<~!', 'a%20b', '[ab]', '{a,b}', 'new\nline', '\udcff', 'gs:', '$a\\b$', *PLAIN_NAMES]


@pytest.fixture
def own_cache():
  """JAX looks for its cache of programs once a process: it is to look again, here and behind this test."""
  before = jax.config.jax_compilation_cache_dir
  compilation_cache.reset_cache()
  yield
  jax.config.update('jax_compilation_cache_dir', before)
  compilation_cache.reset_cache()


@pytest.fixture
def said(capsys):
  """Returns run(*arguments) -> what a command, which ends well, wrote to the standard output."""

  def run(*arguments):
    status = main(list(map(str, arguments)))
    streams = capsys.readouterr()
    assert status == 0, streams.err
    streams.out.encode()  # as a terminal asks
    return streams.out

  return run


def test_every_command_takes_every_name_and_folders_behind_links(tmp_path, said, monkeypatch, tokenizer, own_cache):
  place = tmp_path / NAME
  (place / 'texts').mkdir(parents=True)
  links = [place / name for name in ('run', 'data', 'bundle')]
  for link in links:  # a chain, to what is not there yet
    link.symlink_to(f'{link.name} of links')
    (place / f'{link.name} of links').symlink_to(place / f'{link.name} behind')
  monkeypatch.setenv('TERRAFORMER_CACHE', str(place / 'cache'))
  for split, count in (('train', 60), ('validation', 9), ('test', 5)):
    rows = [f'{{"inputs": "{text}", "targets": "{text[:9]}"}}\n' for text in sentences(count, seed=count)]
    (place / 'texts' / f'{split}.jsonl').write_text(''.join(rows))
  (place / 'words.model').write_bytes(tokenizer.model_bytes)
  (place / 'tiny.gin').write_text(
    TINY_GIN
    + 'config.DataConfig.source = @config.LocalFilesConfig()\n'
    + 'config.TrainConfig.steps = 4\nconfig.TrainConfig.eval_every = 0\nconfig.TrainConfig.sample_every = 0\n'
    + f'config.DataConfig.directory = {ascii(str(place / "data"))}\n'
    + f'config.TokenizerConfig.path = {ascii(str(place / "words.model"))}\nconfig.TokenizerConfig.sentinels = 20\n'
    + f'config.LocalFilesConfig.train = ({ascii(str(place / "texts" / "train.jsonl"))},)\n'
    + f'config.LocalFilesConfig.validation = ({ascii(str(place / "texts" / "vali*.jsonl"))},)\n'
    + f'config.LocalFilesConfig.test = ({ascii(str(place / "texts" / "test.jsonl"))},)\n'
  )
  gin, run = f'--gin_file={place / "tiny.gin"}', place / 'run'
  assert 'prepared, 60 train, 9 validation, 5 test examples' in said('prepare', gin)
  assert '4 steps done' in said('train', gin, f'--workdir={run}', '--quiet')
  assert '6 steps done' in said('train', f'--workdir={run}', '--quiet', '--gin_bindings=config.TrainConfig.steps = 6')
  assert checkpoint.steps(run) == [6, 4]
  evaluated = json.loads(said('evaluate', f'--workdir={run}', '--limit=2', '--max_tokens=2', '--json'))
  assert evaluated['predictions'] == str(run / 'evaluation_test.jsonl')
  said('export', f'--workdir={run}', f'--output={place / "bundle"}')
  (place / 'source.txt').write_text('red tree')
  said('decode', f'--bundle={place / "bundle"}', f'--input_file={place / "source.txt"}')
  assert any((place / 'cache' / 'xla').iterdir())
  assert {path.name for path in tmp_path.iterdir()} == {NAME} and all(link.is_symlink() for link in links)


@pytest.mark.parametrize('name', NAMES)
def test_a_run_is_read_whatever_its_name(finished_run, tmp_path, name):
  run = tmp_path / name / 'run'
  shutil.copytree(finished_run / 'checkpoints' / '24', run / 'checkpoints' / '24')
  config, _ = checkpoint.read_run(run, 24)
  checkpoint.check_params(run, 24, config)
  parameter = min(checkpoint.stored_params(run, 24))
  expected = checkpoint.read_layer(finished_run, 24, parameter, None)
  np.testing.assert_array_equal(checkpoint.read_layer(run, 24, parameter, None), expected)


@pytest.mark.parametrize('name', ['run a', 'run%20a'])
def test_a_run_is_exported_and_not_the_one_beside_it(finished_run, bundle, tmp_path, name):
  for each, step in (('run a', '20'), ('run%20a', '24')):
    run = tmp_path / each
    shutil.copytree(finished_run / 'checkpoints' / step, run / 'checkpoints' / step)
    shutil.copy(finished_run / 'vocabulary.model', run)
  export(tmp_path / name, tmp_path / 'bundle')
  written = (tmp_path / 'bundle' / 'model.safetensors').read_bytes()
  assert (written == (bundle / 'model.safetensors').read_bytes()) == (name == 'run%20a')


@pytest.mark.parametrize('name', NAMES)
def test_a_folder_is_the_same_under_its_plain_name(tmp_path, name):
  folder = tmp_path / name / 'run'
  folder.mkdir(parents=True)
  path = plain(folder / '24' / 'state')  # which need not be there
  assert path.parents[1].samefile(folder) and path.parts[-3:] == ('run', '24', 'state')
  assert path == plain(folder / '24' / 'state')
  assert (path == folder / '24' / 'state') == (name in PLAIN_NAMES) == (name in path.parts)


@pytest.mark.parametrize('way', ['beside/../run', 'link/../run', '../{name}/run'])
def test_a_run_is_exported_from_a_folder_named_by_the_one_above(finished_run, bundle, tmp_path, monkeypatch, way):
  place = tmp_path / 'elsewhere' if 'link' in way else tmp_path
  (place / 'beside').mkdir(parents=True)
  (tmp_path / 'link').symlink_to(place / 'beside')
  shutil.copytree(finished_run, place / 'run')
  monkeypatch.chdir(tmp_path)
  export(Path(way.format(name=tmp_path.name)), tmp_path / 'bundle')
  assert (tmp_path / 'bundle' / 'model.safetensors').read_bytes() == (bundle / 'model.safetensors').read_bytes()


def test_a_folder_that_etils_takes_for_a_bucket_gets_another_name():
  assert plain(Path('/gs/bucket')).parts[1] != 'gs' and plain(Path('/data/gs')) == Path('/data/gs')


def test_a_name_can_be_printed_whatever_it_is():
  text = printable(NAME)
  assert text.isprintable() and '日本\\nline\\udcff' in text and printable('a é') == 'a é'


@pytest.mark.parametrize('value', ['', None])
def test_without_a_cache_folder_it_is_the_users_own(monkeypatch, value):
  monkeypatch.setenv('TERRAFORMER_CACHE', value) if value is not None else monkeypatch.delenv('TERRAFORMER_CACHE')
  assert cache_folder() == Path.home() / '.cache' / 'terraformer'


@pytest.mark.parametrize('exists', [True, False])
def test_a_bundle_behind_links_is_replaced_and_the_links_stay(finished_run, bundle, tmp_path, exists):
  target = tmp_path / 'elsewhere' / 'bundle'
  if exists:
    shutil.copytree(bundle, target)
    (target / 'config.json').write_text('old')
  (tmp_path / 'first').symlink_to('second')
  (tmp_path / 'second').symlink_to(target)
  export(finished_run, tmp_path / 'first')
  assert (target / 'config.json').read_bytes() == (bundle / 'config.json').read_bytes()
  assert (tmp_path / 'first').readlink() == Path('second') and (tmp_path / 'second').readlink() == target
  assert sorted(path.name for path in (*tmp_path.iterdir(), *target.parent.iterdir())) == [
    'bundle', 'elsewhere', 'first', 'second',
  ]  # fmt: skip


@pytest.mark.parametrize(
  ('command', 'kind', 'words'),
  [
    ('train', 'file', 'link is a file; --workdir must be a folder'),
    ('train', 'loop', 'link: file exists'),
    ('export', 'file', 'file is a file; give a new folder'),
    ('export', 'loop', 'link: not a directory'),
  ],
)
def test_a_link_to_what_is_no_folder_is_refused(capsys, finished_run, gin_file, tmp_path, command, kind, words):
  link = tmp_path / 'link'
  link.symlink_to('file' if kind == 'file' else 'link')
  (tmp_path / 'file').write_text('irreplaceable')
  arguments = [f'--workdir={link}', f'--gin_file={gin_file}']
  if command == 'export':
    arguments = [f'--workdir={finished_run}', f'--output={link}']
  assert main([command, *arguments]) == 2
  errors = capsys.readouterr().err
  assert errors.count('\n') == 1 and words in errors and str(tmp_path) in errors
  assert link.is_symlink() and (tmp_path / 'file').read_text() == 'irreplaceable'


def test_a_folder_is_made_behind_a_link(tmp_path):
  (tmp_path / 'link').symlink_to(tmp_path / 'a' / 'b')
  make_folder(tmp_path / 'link' / 'c')
  make_folder(tmp_path / 'link')
  assert (tmp_path / 'a' / 'b' / 'c').is_dir()


def test_a_bundle_may_have_the_longest_name(finished_run, tmp_path):
  export(finished_run, tmp_path / ('n' * 255))
  assert (tmp_path / ('n' * 255) / 'config.json').exists()


COMMANDS = {
  'gin_file': ['describe'],
  'workdir': ['train'],
  'output': ['export', '--workdir=none'],
  'bundle': ['decode', '--input=x'],
  'input_file': ['decode', '--bundle=none'],
  'scratch': ['bench', 'decode'],
  'chart': ['bench', 'decode'],
  'checkpoint': ['import', '--output=bundle'],
  'config': ['import', '--checkpoint=none', '--output=bundle'],
  'vocabulary': ['import', '--checkpoint=none', '--output=bundle'],
  'report': ['import', '--checkpoint=none', '--output=bundle'],
}


@pytest.mark.parametrize('flag', PATH_FLAGS)
def test_an_empty_path_is_refused(capsys, tmp_path, monkeypatch, flag):
  monkeypatch.chdir(tmp_path)
  assert main([*COMMANDS[flag], f'--{flag}=']) == 2
  errors = capsys.readouterr().err
  assert f'--{flag}: the path is empty' in errors and errors.count('\n') == 1
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('binding', 'problem'),
  [
    ("DataConfig.directory = ''", 'DataConfig.directory is empty'),
    ("LocalFilesConfig.train = ('a.txt', '')", 'LocalFilesConfig.train: one of the paths is an empty string'),
    ("LocalFilesConfig.test = ('',)", 'LocalFilesConfig.test: one of the paths is an empty string'),
  ],
)
def test_an_empty_path_in_a_configuration_is_refused(capsys, binding, problem):
  source = '--gin_bindings=config.DataConfig.source = @config.LocalFilesConfig()'
  assert main(['describe', source, f'--gin_bindings=config.{binding}']) == 2
  assert problem in capsys.readouterr().err
