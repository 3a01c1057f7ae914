import json
import os
from pathlib import Path

import pytest

from terraformer.config import LocalFilesConfig, LocalFolderConfig, UserError
from terraformer.data import leaks, local_folder, report, store
from terraformer.data.local_files import source_paths
from tests.prepared import sentences

SENTENCE = sentences(4, seed=len('train'))[3]  # the fourth that `fake_prepared` trains on
ROW = '{"inputs": "a", "targets": "b"}\n'


WAYS = {
  'the same name': lambda: 'train.jsonl',
  'another spelling': lambda: './below/../train.jsonl',
  'an absolute path': lambda: str(Path('train.jsonl').absolute()),
  'a link': lambda: os.symlink('train.jsonl', 'val.jsonl') or 'val.jsonl',  # noqa: PTH211
  'a hard link': lambda: os.link('train.jsonl', 'val.jsonl') or 'val.jsonl',  # noqa: PTH200
}


@pytest.fixture
def here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  Path('below').mkdir()
  Path('train.jsonl').write_text(ROW)


@pytest.mark.parametrize('split', ['validation', 'test'])
@pytest.mark.parametrize('way', WAYS)
def test_a_file_that_is_trained_on_and_held_out_is_named(here, split, way):
  name = WAYS[way]()
  with pytest.raises(UserError, match=rf'^LocalFilesConfig: {split} and train share the file .*; remove it from') as e:
    source_paths(LocalFilesConfig(('train.jsonl',), **{split: (name,)}))
  assert name.removeprefix('./') in str(e.value) and 'train.jsonl' in str(e.value)


def test_a_pattern_that_matches_what_is_held_out_is_refused(here):
  Path('val.jsonl').write_text(ROW)
  with pytest.raises(UserError, match='validation and train share the file val.jsonl; remove it'):
    source_paths(LocalFilesConfig(('*.jsonl',), ('val.jsonl',)))


def test_other_files_of_the_same_text_and_validation_for_test_are_read(here):
  Path('val.jsonl').write_text(ROW)
  found = source_paths(LocalFilesConfig(('train.jsonl',), ('val.jsonl',), ('val.jsonl',)))
  assert found['validation'] == found['test'] == [Path('val.jsonl')]


@pytest.mark.parametrize('link', [os.symlink, os.link])
def test_a_folder_with_a_file_in_two_splits_is_refused(here, link):
  link(Path('train.jsonl').absolute(), 'test.jsonl')
  with pytest.raises(UserError, match=r'test and train share the file .*test.jsonl, named .*train.jsonl in train;'):
    local_folder.files_of(LocalFolderConfig('.'))


def test_a_folder_that_is_a_link_to_that_of_training_is_refused(here):
  Path('data/train').mkdir(parents=True)
  Path('train.jsonl').rename('data/train/0.jsonl')
  Path('data/validation').symlink_to('train')
  with pytest.raises(UserError, match='validation and train share the file'):
    local_folder.files_of(LocalFolderConfig('data'))


def test_keys_are_of_every_text_and_not_of_the_place():
  one = {'inputs': 'a', 'targets': 'b', 'record': 'x.jsonl, line 1'}
  assert leaks.key(one) == leaks.key({'targets': 'b', 'inputs': 'a'})
  assert leaks.key(one) not in leaks.keys([{'inputs': 'b', 'targets': 'a'}, {'targets': 'b'}, {'inputs': 'a'}])


@pytest.mark.parametrize('has_inputs', [True, False])
def test_a_training_text_that_is_held_out_is_counted_and_told(fake_prepared, has_inputs):
  text = {'targets': 'Summary 3', 'inputs': SENTENCE} if has_inputs else {'targets': SENTENCE}
  config = fake_prepared('leaky', has_inputs=has_inputs, held_out=leaks.keys([text, {'targets': 'of no example'}]))
  manifest = store.read_manifest(config)
  assert manifest.dropped['held out as well'] == 1
  told = 'training examples whose exact text is also in validation or test: 1, first train, part 0, example 3'
  assert told in list(report.skipped(manifest))


def test_nothing_is_told_where_nothing_is_in_two_splits(fake_prepared):
  manifest = store.read_manifest(fake_prepared('sound', held_out=leaks.keys([{'inputs': 'a', 'targets': 'b'}])))
  assert 'held out as well' not in manifest.dropped


def test_what_a_folder_holds_out_is_read_whole(here):
  for name in ('validation-0', 'validation-1', 'test'):
    Path(f'{name}.jsonl').write_text(json.dumps({'inputs': name, 'targets': 'b'}))
  found = [row['inputs'] for row in local_folder.LocalFolder(LocalFolderConfig('.')).held_out(show_progress=False)]
  assert sorted(found) == ['test', 'validation-0', 'validation-1']
