"""Gin files are read under any name, and as any editor writes them; what cannot be read is named."""

import sys

import pytest

from terraformer.cli import load_configs
from terraformer.config import UserError
from tests.test_paths import NAMES

HEAD = 'from __gin__ import dynamic_registration\nfrom terraformer import config\n'
STEPS = f'{HEAD}config.TrainConfig.steps = 77\nconfig.TrainConfig.seed = 5\n'
MARK = b'\xef\xbb\xbf'
AS_WRITTEN = [MARK + STEPS.encode(), STEPS.replace('\n', '\r\n').encode(), MARK + STEPS.replace('\n', '\r').encode()]


def steps(path):
  run, _, text = load_configs([str(path)], [])
  assert load_configs([], [], text)[0] == run
  return run.train.steps


@pytest.mark.parametrize('name', [*NAMES, "o'neil", 'a\\new', 'a\\', 'é"'])
def test_a_gin_file_is_read_whatever_its_name(tmp_path, name):
  (tmp_path / f'{name}.gin').write_text(STEPS)
  assert steps(tmp_path / f'{name}.gin') == 77


def test_another_file_is_not_read_in_its_place(tmp_path):
  (tmp_path / 'a\new.gin').write_text(STEPS.replace('77', '78'))
  (tmp_path / 'a\\new.gin').write_text(STEPS)
  assert steps(tmp_path / 'a\\new.gin') == 77


@pytest.mark.parametrize('data', AS_WRITTEN)
def test_a_gin_file_is_read_and_included_however_it_was_written(tmp_path, monkeypatch, data):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'below').mkdir()
  (tmp_path / 'below' / 'inner.gin').write_bytes(data)
  (tmp_path / 'outer.gin').write_bytes(MARK + b"include 'gin_configs/runs/demo.gin'\r\ninclude 'below/inner.gin'\r\n")
  assert steps('below/inner.gin') == steps('outer.gin') == 77


def test_a_path_within_is_what_it_was(tmp_path):
  path = str(tmp_path / ('a b\\n\'"%s' * 20))
  (tmp_path / 'a.gin').write_text(f'{HEAD}config.DataConfig.directory = {path!r}\n')
  source = 'config.DataConfig.source = @config.LocalFilesConfig()'
  bindings = [source, f'config.LocalFilesConfig.train = ({path!r},)']
  run, _, text = load_configs([str(tmp_path / 'a.gin')], bindings)
  assert run.data.directory == run.data.source.train[0] == path
  assert load_configs([], [], text)[0] == run


@pytest.mark.parametrize(
  ('data', 'words'),
  [
    (None, 'cannot read .*: is a directory'),
    (b'', 'the gin file is empty'),
    (b' \r\n', 'the gin file is empty'),
    (b'\xff\xfec\x00', 'expected UTF-8, found the byte 0xff at offset 0'),
    (b'# caf\xe9', 'expected UTF-8, found the byte 0xe9 at offset 5'),
    (
      f'{HEAD}config.TrainConfig.stesp = 3'.encode(),
      "inner.gin, line 3: TrainConfig has no field 'stesp'; did you mean steps",
    ),
    (MARK + b'# x\r\n.x = 3', 'inner.gin, line 2'),
  ],
)
@pytest.mark.parametrize('including', [False, True])
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, monkeypatch, data, words, including):
  monkeypatch.chdir(tmp_path)
  inner = tmp_path / 'inner.gin'
  inner.mkdir() if data is None else inner.write_bytes(data)
  (tmp_path / 'outer.gin').write_text("include 'inner.gin'\n")
  with pytest.raises(UserError, match=words) as told:
    load_configs(['outer.gin' if including else 'inner.gin'], [])
  assert 'inner.gin' in str(told.value) and '\n' not in str(told.value)


@pytest.mark.parametrize('name', ['none.gin', 'link.gin', 'outer.gin'])
def test_a_file_that_is_not_there_is_named(tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'link.gin').symlink_to('nowhere.gin')
  (tmp_path / 'outer.gin').write_text("include 'inner.gin'\n")
  with pytest.raises(UserError, match=f'{name}.*: no such file') as told:
    load_configs([name], [])
  assert name != 'outer.gin' or "include 'inner.gin'" in str(told.value)


@pytest.mark.parametrize('names', [['a.gin'], ['a.gin', 'b.gin'], ['a.gin', './b.gin', 'c.gin']])
def test_files_that_include_each_other_are_named_at_once(tmp_path, monkeypatch, names):
  monkeypatch.chdir(tmp_path)
  for name, following in zip(names, [*names[1:], names[0]], strict=True):
    (tmp_path / name).write_text(f"{HEAD}include '{following}'\n" * 9)
  with pytest.raises(UserError, match='a.gin includes itself'):
    load_configs(['a.gin'], [])


def test_a_file_may_be_included_twice(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'a.gin').write_text(STEPS)
  (tmp_path / 'b.gin').write_text("include 'a.gin'\ninclude 'a.gin'\n")
  assert steps('b.gin') == 77


def test_what_a_file_imports_may_lie_in_the_working_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', [path for path in sys.path if path not in ('', str(tmp_path))])
  (tmp_path / 'mine_beside_a_gin_file.py').write_text('def steps():\n  return 7\n')
  (tmp_path / 'json.py').write_text('raise RuntimeError("in the place of a library")')
  (tmp_path / 'a.gin').write_text(
    f'{HEAD}import mine_beside_a_gin_file\nimport json\nconfig.TrainConfig.steps = @mine_beside_a_gin_file.steps()\n'
  )
  before = list(sys.path)
  assert load_configs(['a.gin'], [])[0].train.steps == 7
  assert sys.path == before
