"""What is done in a child process, and what is heard of it."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from terraformer.config import DataConfig, LocalFilesConfig, SeqioTaskConfig, UserError
from terraformer.data import batches, child
from terraformer.data.local_files import local_files
from terraformer.data.tokenizer import train_vocabulary
from tests.data.conftest import SMALL
from tests.prepared import ROOT

_MODULE = """
import seqio
from terraformer import config as c
from terraformer.data import registered

print('registering')
words = c.TokenizerConfig('words.model', sentinels=20)
for name in ('one', 'two'):
  texts = c.LocalFilesConfig(*[(f'{name}{split}.jsonl',) for split in ('', '-validation', '-test')])
  registered.register(c.DataConfig(texts, tokenizer=words), name)
seqio.MixtureRegistry.add('both', [('one', 1), ('two', 1)])
"""


LIBRARIES = ['token', 'jax', 'numpy', 'json', 'seqio', 'tensorflow', 'sentencepiece', 'array_record']


def test_a_file_with_the_name_of_a_library_is_none(tmp_path):
  for library in LIBRARIES:
    (tmp_path / f'{library}.py').write_text('raise RuntimeError("in the place of a library")')
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  command = [sys.executable, '-m', 'terraformer', 'describe', '--json']
  done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('first', ['', '.', '{}'])
def test_the_working_folder_comes_last(tmp_path, monkeypatch, first):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', [first.format(tmp_path), '/elsewhere', *sys.path])
  path = child._import_path()
  assert path[0] == '/elsewhere' and path[-1] == str(tmp_path) and path.count(str(tmp_path)) == 1 and '' not in path


def test_an_error_in_the_child_is_one_sentence_here(tmp_path, capfd):
  source = tmp_path / 'bad.txt'
  source.write_bytes(b'caf\xe9')
  config = DataConfig(LocalFilesConfig((str(source),)), str(tmp_path / 'out'))
  with pytest.raises(UserError, match='bad.txt: expected UTF-8, found the byte 0xe9 at offset 3'):
    child.ensure_prepared(config, show_progress=False)
  assert capfd.readouterr() == ('', '')
  assert [path.name for path in (tmp_path / 'out').iterdir()] == ['.local_files.lock']


def test_a_vocabulary_is_trained_by_itself_and_is_the_one_that_preparing_trains(local, tmp_path):
  path = tmp_path / 'new' / 'vocabulary.model'
  tokenizer = child.write_vocabulary(local, path, show_progress=False)
  text = Path(local.source.train[0]).read_text()
  held_out = local_files(local.source)
  assert (
    tokenizer.fingerprint
    == train_vocabulary([example['targets'] for example in held_out['train']], SMALL.size, SMALL.sentinels).fingerprint
  )
  assert tokenizer.sentinels == 20 and tokenizer.decode(tokenizer.encode(text)) == text
  with pytest.raises(UserError, match='task mine: cannot train a vocabulary for a seqio task'):
    child.write_vocabulary(DataConfig(SeqioTaskConfig('mine')), path)
  with pytest.raises(UserError, match='cannot write .*new: is a directory'):
    child.write_vocabulary(local, path.parent, show_progress=False)


@pytest.mark.skipif(not hasattr(os, 'memfd_create'), reason='the system has no files in memory')
def test_it_needs_no_room_for_temporary_files(local, tmp_path, monkeypatch):
  def refuse(*_, **__):
    raise FileNotFoundError(errno.ENOENT, 'No usable temporary directory found')  # what Python says where all are full

  monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)
  with pytest.raises(UserError, match='cannot write /dev/full: no space left on device'):
    child.write_vocabulary(local, Path('/dev/full'), show_progress=False)


def test_a_users_mixture_is_prepared_where_its_module_is_named(tmp_path, monkeypatch, tokenizer, capfd):
  monkeypatch.chdir(tmp_path)
  Path('mine.py').write_text(_MODULE)
  Path('broken.py').write_text('import nothing_of_this_name')
  Path('ends.py').write_text('print("loading ...", end=""); raise SystemExit(2)')
  for library in LIBRARIES:
    Path(f'{library}.py').write_text('raise RuntimeError("in the place of a library")')
  Path('words.model').write_bytes(tokenizer.model_bytes)
  Path('one.jsonl').write_text('{"inputs": "red tree", "targets": "a door"}\n')
  rows = ['{"inputs": "blue hill", "targets": "a road"}'] * 2 + ['{"inputs": " ", "targets": "nothing"}']
  Path('two.jsonl').write_text('\n'.join(rows))
  for name in ('one', 'two'):
    for split in ('validation', 'test'):
      Path(f'{name}-{split}.jsonl').write_bytes(Path(f'{name}.jsonl').read_bytes())
  with pytest.raises(UserError, match='first run `terraformer prepare --module=MODULE`'):
    child.ensure_prepared(DataConfig(SeqioTaskConfig('both')))
  with pytest.raises(UserError, match='--module broken: cannot import .*: ModuleNotFoundError: No module named'):
    child.ensure_prepared(DataConfig(SeqioTaskConfig('both')), show_progress=False, modules=['broken'])
  with pytest.raises(UserError, match='--module ends: cannot import this module: SystemExit: 2'):
    child.ensure_prepared(DataConfig(SeqioTaskConfig('both')), show_progress=False, modules=['ends'])
  manifest = child.ensure_prepared(DataConfig(SeqioTaskConfig('both')), show_progress=False, modules=['mine'])
  assert {name: task['examples']['train'] for name, task in manifest.tasks.items()} == {'one': 1, 'two': 2}
  assert manifest.dropped['empty'] == 3 and manifest.first_dropped['empty'].startswith('two.jsonl, line 3')
  assert capfd.readouterr() == ('', '')
  assert batches.open_prepared(DataConfig(SeqioTaskConfig('both'))).fingerprint == manifest.fingerprint

  Path('mine.py').write_text(_MODULE.replace("('two', 1)", "('two', 2)"))
  with pytest.raises(UserError, match="expected the tasks and rates {'one': 1.0, 'two': 2.0}, found .*'two': 1.0}"):
    child.ensure_prepared(DataConfig(SeqioTaskConfig('both')), show_progress=False, modules=['mine'])
  Path('mine.py').write_text(_MODULE)
  Path('one.jsonl').write_text('{"inputs": "red tree", "targets": "a hill"}\n')
  with pytest.raises(UserError, match='one.jsonl has changed since it was prepared'):
    child.ensure_prepared(DataConfig(SeqioTaskConfig('both')), show_progress=False, modules=['mine'])


@pytest.fixture
def preparing(terraformer, local):
  """A real process that prepares, and its child; it ignores Ctrl-C, as one that a script puts into the background."""
  values = {'DataConfig.directory': local.directory, 'LocalFilesConfig.train': local.source.train}
  bindings = [f'--gin_bindings=config.{name} = {value!r}' for name, value in values.items()]
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    process = terraformer('prepare', '--gin_file=gin_configs/data/local_files.gin', *bindings)
  finally:
    signal.signal(signal.SIGINT, before)
  children, deadline = [], time.monotonic() + 60
  while not children and process.poll() is None and time.monotonic() < deadline:
    children = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    time.sleep(0.01)
  time.sleep(1)  # into the child's imports
  yield process, int(children[0])
  process.kill()
  process.communicate()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_both_in_a_word(preparing, number, local):
  process, pid = preparing
  process.send_signal(number)
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 75 and errors.endswith('terraformer prepare: interrupted\n')
  assert 'Traceback' not in errors and not Path(f'/proc/{pid}').exists()
  assert [path.name for path in Path(local.directory).iterdir()] in ([], ['.local_files.lock'])


def test_a_child_ends_with_its_parent(preparing):
  process, pid = preparing
  process.kill()
  process.wait()
  deadline = time.monotonic() + 60
  while _is_running(pid):
    assert time.monotonic() < deadline
    time.sleep(0.05)


def _is_running(pid):
  try:
    return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'  # dead, and nobody has asked yet
  except OSError:
    return False


@pytest.mark.slow
def test_ensure_prepared_really_prepares_in_a_child(local):
  manifest = child.ensure_prepared(local, show_progress=False)
  assert manifest.examples['validation'] >= 1
  assert child.ensure_prepared(local) == manifest
