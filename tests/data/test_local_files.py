import json
import shutil
import types

import pytest

from terraformer.config import DataConfig, LocalFilesConfig, UserError, differences
from terraformer.data import store
from terraformer.data.local_files import local_files, source_paths


@pytest.fixture
def write(tmp_path):
  def write_file(name, content):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)

  return write_file


def in_each_split(path):
  """The paths of a file for training, and of copies of it for validation and test."""
  copies = [path.replace('.', f'-{split}.') for split in ('validation', 'test')]
  for copy in copies:
    shutil.copy(path, copy)
  return [(name,) for name in (path, *copies)]


def test_paragraphs_of_text_and_where_they_begin(write):
  path = write('a.txt', '\none\ntwo\n\n \nthree\n')
  splits = local_files(LocalFilesConfig(*in_each_split(path)))
  assert [row['targets'] for row in splits['train']] == [row['targets'] for row in splits['test']]
  assert splits['train'] == [
    {'targets': 'one\ntwo', 'record': f'{path}, line 2'},
    {'targets': 'three', 'record': f'{path}, line 6'},
  ]


def test_named_fields_of_json_lines(write):
  path = write('a.jsonl', '{"long": "a b", "short": "a"}\n\n{"long": "c", "short": "d", "more": 1}\n')
  paths = in_each_split(path)
  config = LocalFilesConfig(*paths, inputs_field='long', targets_field='short')
  assert local_files(config)['train'] == [
    {'inputs': 'a b', 'targets': 'a', 'record': f'{path}, line 1'},
    {'inputs': 'c', 'targets': 'd', 'record': f'{path}, line 3'},
  ]
  last = local_files(LocalFilesConfig(*paths, '', 'long'))['train'][1]
  assert last == {'targets': 'c', 'record': f'{path}, line 3'}


def test_an_empty_text_is_passed_on_to_be_counted(write):
  path = write('a.jsonl', '{"inputs": "a", "targets": "b"}\n{"inputs": " ", "targets": "d"}\n')
  splits = local_files(LocalFilesConfig(*in_each_split(path)))
  assert splits['train'][1] == {'inputs': '', 'targets': 'd', 'record': f'{path}, line 2'}


def test_a_folder_whose_name_is_a_pattern_is_meant_by_it(write, tmp_path):
  for name in ('[ab]', 'a'):
    (tmp_path / name).mkdir()
    write(f'{name}/x.txt', name)
  splits = local_files(LocalFilesConfig((f'{tmp_path}/[ab]/*.txt',)))
  assert [example['targets'] for example in splits['train']] == ['[ab]']


@pytest.mark.parametrize('name', ['./odd.jsonl', './/odd.jsonl', '{}/odd.jsonl', '{}//./odd.jsonl'])
def test_a_file_is_the_same_under_each_of_its_names(write, tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  write('odd.jsonl', '{"inputs": "a", "targets": "b"}\n')
  write('even.jsonl', '{"inputs": "c", "targets": "d"}\n')
  configs = [LocalFilesConfig((each.format(tmp_path), 'even.jsonl')) for each in ('odd.jsonl', name)]
  assert not differences(*configs)
  first, second = map(local_files, configs)
  assert [example['targets'] for example in first['train']] == [example['targets'] for example in second['train']]
  assert '//' not in second['train'][0]['record'] and '/./' not in second['train'][0]['record']
  twice = source_paths(LocalFilesConfig(('odd.jsonl', name.format(tmp_path))))
  assert len(twice['train']) == 1


def test_another_file_is_another(write, tmp_path):
  assert differences(LocalFilesConfig(('a.txt', 'b.txt')), LocalFilesConfig(('b.txt', 'a.txt')))
  assert differences(LocalFilesConfig(('a.txt',)), LocalFilesConfig(('below/a.txt',)))


def test_patterns_are_read_in_order(write, tmp_path):
  write('b.txt', 'second')
  write('a.txt', 'first')
  held_out = write('held_out/c.txt', 'third')
  splits = local_files(LocalFilesConfig((str(tmp_path / '*.txt'),), (held_out,), (held_out,)))
  assert [example['targets'] for example in splits['train']] == ['first', 'second']


@pytest.mark.parametrize('count, held_out', [(1, 0), (2, 1), (3, 1), (100, 5), (1000, 50)])
def test_a_twentieth_is_held_out_and_training_never_empty(write, count, held_out):
  path = write('a.txt', '\n\n'.join(f'text {i}' for i in range(count)))
  splits = local_files(LocalFilesConfig((path,)))
  assert len(splits['validation']) == held_out
  assert len(splits['train']) >= 1
  texts = [example['targets'] for split in splits.values() for example in split]
  assert len(texts) == len(set(texts)) == count


def test_what_is_held_out_does_not_depend_on_order_and_keeps_copies_together(write):
  texts = [f'text {i % 50}' for i in range(200)]
  one = local_files(LocalFilesConfig((write('a.txt', '\n\n'.join(texts)),)))
  two = local_files(LocalFilesConfig((write('b.txt', '\n\n'.join(texts[::-1])),)))
  kinds = [{example['targets'] for example in split} for split in one.values()]
  assert kinds == [{example['targets'] for example in split} for split in two.values()]
  assert not kinds[0] & kinds[1] and not kinds[0] & kinds[2] and not kinds[1] & kinds[2]


@pytest.mark.parametrize(
  'name, content, expected',
  [
    ('a.txt', b'', 'a.txt: the text is empty'),
    ('a.txt', b'caf\xe9 x', 'expected UTF-8, found the byte 0xe9 at offset 3'),
    ('a.csv', 'x', 'expected a .txt or .jsonl file, found .csv'),
    ('a.jsonl', '{"inputs": "a", "targets": "b"}\n{"inputs": }', 'line 2 is not valid JSON at character'),
    ('a.jsonl', '{"inputs": "a\\ud800", "targets": "b"}', 'line 1: .* found half a surrogate pair'),
    ('a.jsonl', ' \n', 'a.jsonl has no lines'),
    (
      'a.jsonl',
      '{"targets": "b"}',
      "'inputs', found .*; name yours with .*config.LocalFilesConfig.inputs_field = 'NAME'",
    ),
    ('a.jsonl', '[1]', 'line 1: expected a JSON object, found list'),
    ('a.jsonl', '[\n {}]', 'line 1: expected a JSON object, found the start of a list'),
    ('a.jsonl', json.dumps({'text': 'a', 'targets': 'b'}), "expected the field 'inputs', found the fields .*'text'"),
    ('a.jsonl', '{"inputs": "a", "targets": 3}', "line 1: expected text in the field 'targets', found 3"),
  ],
)
def test_a_bad_file_is_named(write, name, content, expected):
  path = write(name, content)
  with pytest.raises(UserError, match=expected) as caught:
    local_files(LocalFilesConfig((path,)))
  assert path in str(caught.value) and '\n' not in str(caught.value)


def test_forgotten_files_are_told_of_before_other_data_in_the_folder():
  prepared = DataConfig(LocalFilesConfig(('a.jsonl',)))
  manifest = types.SimpleNamespace(config=prepared, is_text=False, objectives=[None], packed={})
  with pytest.raises(UserError, match='^LocalFilesConfig.train is empty; name your'):
    store._require_same(manifest, DataConfig(LocalFilesConfig()), 'folder')
  words = r"data.source.train = \('a.jsonl',\), not \('b.jsonl',\); choose another directory \(--gin.*\), or remove"
  with pytest.raises(UserError, match=words):
    store._require_same(manifest, DataConfig(LocalFilesConfig(('b.jsonl',))), 'folder')


def test_missing_and_mixed_files(write, tmp_path):
  with pytest.raises(UserError, match='LocalFilesConfig.train is empty; name your .* with --gin_bindings='):
    local_files(LocalFilesConfig())
  with pytest.raises(UserError, match='no file matches .*nowhere'):
    local_files(LocalFilesConfig((str(tmp_path / 'nowhere*.txt'),)))
  with pytest.raises(UserError, match='must be of one kind, found .jsonl and .txt'):
    local_files(LocalFilesConfig((write('a.txt', 'x'), write('a.jsonl', '{}'))))
  with pytest.raises(UserError, match='found a folder'):
    local_files(LocalFilesConfig((str(tmp_path),)))
