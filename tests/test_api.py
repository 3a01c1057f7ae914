"""The public API: names that are imported when they are used, and runs that Python code configures."""

import ast
import dataclasses
import importlib
import logging
from pathlib import Path

import pytest

import terraformer as tf
from terraformer import config as config_lib
from terraformer.decode.decoder import Decoder
from terraformer.training import checkpoint

ROOT = Path(tf.__file__).parent
_PUBLIC = [name for name in tf.__all__ if name != '__version__']


@pytest.mark.parametrize('name', _PUBLIC)
def test_a_public_name_is_found(name):
  assert callable(getattr(tf, name))


@pytest.mark.parametrize('name', tf.__all__)
def test_a_public_name_is_no_module_of_the_package(name):
  """An import of that module would put it in the name's place."""
  assert not (ROOT / name).exists() and not (ROOT / f'{name}.py').exists()


def test_every_kind_of_config_is_public():
  kinds = {name for name in config_lib.__all__ if isinstance(getattr(config_lib, name), type)}
  missing = kinds - set(tf.__all__)
  assert not missing, f'add {", ".join(sorted(missing))} to the import and to __all__ of terraformer/__init__.py'
  assert all(getattr(tf, name) is getattr(config_lib, name) for name in kinds)


def test_type_checkers_see_the_names_that_are_there():
  branch, _ = (node for node in ast.parse((ROOT / '__init__.py').read_text()).body if isinstance(node, ast.If))
  imported = {}
  for node in branch.body:
    assert isinstance(node, ast.ImportFrom)
    imported |= {alias.name: node.module for alias in node.names}
  different = set(imported) ^ set(_PUBLIC)
  assert not different, f'terraformer/__init__.py: the import and __all__ differ in {", ".join(sorted(different))}'
  assert all(getattr(importlib.import_module(module), name) is getattr(tf, name) for name, module in imported.items())


def test_public_names_are_listed_before_they_are_used(python):
  listed = python('import terraformer; print(*dir(terraformer))').stdout.split()
  assert set(tf.__all__) <= set(listed)


def test_the_package_alone_imports_no_other_module(python):
  code = 'import sys; before = set(sys.modules); import terraformer; print(*(set(sys.modules) - before))'
  assert python(code).stdout.split() == ['terraformer']


@pytest.mark.parametrize('name', ['RunConfig', 'load_config'])
def test_a_configuration_needs_no_jax(python, name):
  code = f'import sys, terraformer; terraformer.{name}(); print("jax" in sys.modules)'
  assert python(code).stdout.split() == ['False']


def test_another_name_is_refused():
  with pytest.raises(AttributeError, match="module 'terraformer' has no attribute 'trian'"):
    _ = tf.trian


def test_functions_stay_where_modules_are_imported(python):
  code = (
    'import terraformer as tf, terraformer.training.loop, terraformer.eval.evaluate, terraformer.exporting\n'
    'print(*(type(each).__name__ for each in (tf.train, tf.evaluate, tf.export)))'
  )
  assert python(code).stdout.split() == ['function'] * 3


def test_the_package_says_that_it_has_types():
  assert (ROOT / 'py.typed').exists()


@pytest.fixture(scope='module')
def run(gin_file, tmp_path_factory):
  """The folder of a run that Python code has configured, trained, and resumed."""
  folder = tmp_path_factory.mktemp('api') / 'run'
  settings = {'steps': 2, 'eval_every': 0, 'sample_every': 0}
  config = tf.load_config(gin_file, bindings=[f'config.TrainConfig.{name} = {n}' for name, n in settings.items()])
  tf.train(config, str(folder), show_progress=False)
  longer = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=4))
  return folder, tf.train(longer, folder, show_progress=False)


def test_a_run_is_trained_and_resumed(run):
  folder, result = run
  assert result.step == 4 and result.interrupted is None
  assert checkpoint.steps(folder)[0] == 4


def test_a_run_is_resumed_by_the_command(run, terraformer):
  folder, _ = run
  process = terraformer('train', f'--workdir={folder}', '--quiet')
  output, errors = process.communicate(timeout=120)
  assert process.returncode == 0, errors[-3000:]
  assert '4 steps done' in output


def test_a_run_is_evaluated(run):
  result = tf.evaluate(run[0], limit=3, show_progress=False, decode=tf.DecodeConfig(max_tokens=2))
  assert (result.step, result.n_examples, len(result.texts)) == (4, 3, 3)
  assert result.texts[0][0] not in repr(result), 'a notebook would print them all'


def test_the_perplexity_alone_takes_no_decoding(run):
  assert tf.evaluate(run[0], split='validation', limit=3, decode=None, show_progress=False).texts == []


def test_a_run_is_exported_and_decoded(run, tmp_path):
  assert tf.export(run[0], str(tmp_path / 'bundle')) == 4
  decoder = tf.Decoder.open(tmp_path / 'bundle')
  assert isinstance(decoder, Decoder)
  assert isinstance(''.join(decoder.generate('red green', tf.DecodeConfig(max_tokens=3))), str)


def test_a_notebook_does_not_show_what_libraries_log(run, tmp_path, caplog):
  level = logging.getLogger('absl').level
  tf.export(run[0], tmp_path / 'bundle')
  assert not caplog.records and logging.getLogger('absl').level == level


@pytest.mark.parametrize('call', ['evaluate', 'export'])
def test_what_is_wrong_is_an_exception(tmp_path, call):
  arguments = [tmp_path / 'output'] if call == 'export' else []
  with pytest.raises(tf.UserError):
    getattr(tf, call)(tmp_path, *arguments)


def test_a_later_file_and_a_binding_win(tmp_path, gin_file):
  (tmp_path / 'longer.gin').write_text('from terraformer import config\nconfig.TrainConfig.steps = 48\n')
  assert tf.load_config(gin_file).train.steps == 24
  assert tf.load_config(gin_file, tmp_path / 'longer.gin').train.steps == 48
  bindings = ['config.TrainConfig.steps = 96', 'config.TrainConfig.batch_size = 2']
  train = tf.load_config(gin_file, tmp_path / 'longer.gin', bindings=bindings).train
  assert (train.steps, train.batch_size) == (96, 2)


def test_a_model_is_made_of_a_configuration(gin_file):
  import jax

  model = tf.make_model(tf.load_config(gin_file).model, key=jax.random.key(0))
  tokens = jax.numpy.ones((1, 6), int)
  assert model(tokens, tokens).shape == (1, 6, 452)


CHECKPOINTS = Path(__file__).parent / 'trax' / 'checkpoints'


def test_a_checkpoint_of_the_authors_is_imported_and_decoded(tmp_path):
  done = tf.import_checkpoint(str(CHECKPOINTS / 'c4_big'), output=str(tmp_path / 'bundle'), dtype='bfloat16')
  assert (done.step, len(done.entries), done.model.vocab_size) == (2, 136, 69)
  assert tf.Decoder.open(tmp_path / 'bundle').bundle.dtype == 'bfloat16'


def test_a_checkpoint_of_the_authors_becomes_a_run(tmp_path):
  done = tf.import_checkpoint(CHECKPOINTS / 'c4_big', workdir=tmp_path / 'run')
  assert checkpoint.steps(tmp_path / 'run') == [done.step]


@pytest.mark.parametrize(
  ('given', 'says'),
  [
    ({}, 'give either output'),
    ({'output': 'a', 'workdir': 'b'}, 'give either output'),
    ({'workdir': 'b', 'dtype': 'int8'}, 'dtype is for a bundle'),
  ],
)
def test_an_import_without_one_target_is_refused(given, says):
  with pytest.raises(tf.UserError, match=says):
    tf.import_checkpoint(CHECKPOINTS / 'c4_big', **given)
