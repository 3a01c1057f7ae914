import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from terraformer.config import LocalFolderConfig, UserError
from terraformer.data import local_folder

ROWS = [{'inputs': f'text {i}', 'targets': f'{i}'} for i in range(3000)]


@pytest.fixture
def folder(tmp_path):
  """Returns write(name, rows): a file of `tmp_path` in the format that its name ends in."""

  def write(name, rows):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.parquet':
      pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=700)
    else:
      text = '\n'.join(row if isinstance(row, str) else json.dumps(row) for row in rows)
      path.write_bytes(gzip.compress(text.encode()) if path.suffix == '.gz' else text.encode())
    return LocalFolderConfig(str(tmp_path))

  return write


def texts(config, files, part, parts):
  return [
    {name: text for name, text in row.items() if name != 'record'}
    for row in local_folder.read(config, files, part, parts)
  ]


@pytest.mark.parametrize(
  'name, split, beside',
  [
    ('data/train-00000-of-00001.parquet', 'train', 'data/train-00001.jsonl'),
    ('train.jsonl', 'train', 'train-1.jsonl'),
    ('validation-00000-of-00002.parquet', 'validation', 'train.jsonl'),
    ('dev.json', 'validation', 'training.jsonl'),
    ('my_test.jsonl', 'test', 'my_train.jsonl'),
    ('test/0000.parquet', 'test', 'train/0000.jsonl'),
    ('en/c4-validation.00000-of-00008.json.gz', 'validation', 'en/c4-train.00000-of-01024.jsonl'),
  ],
)
def test_files_belong_to_the_split_that_their_path_names(folder, name, split, beside):
  folder(beside, ROWS[:1])
  config = folder(name, ROWS[:1])
  folder('README.md', ['no data'])
  folder('.cache/train.jsonl', ['no data'])
  found = local_folder.files_of(config)
  assert name.split('/')[-1] in [path.name for path in found.of_split[split]]
  assert sum(map(len, found.of_split.values())) == 2 and not any(found.passed_over.values())


def test_several_data_sets_are_told_apart(folder):
  folder('document/train.jsonl', ROWS[:1])
  config = folder('section/train.jsonl', ROWS[:1])
  with pytest.raises(UserError, match=r'train files belong to several data sets \(document, section\);'):
    local_folder.files_of(config)
  assert local_folder.files_of(LocalFolderConfig(f'{config.directory}/section')).of_split.keys() == {'train'}


def test_splits_may_lie_in_different_folders(folder):
  folder('data/train.jsonl', ROWS[:1])
  assert local_folder.files_of(folder('test.jsonl', ROWS[:1])).of_split.keys() == {'train', 'test'}


@pytest.mark.parametrize('name', ['human_eval_train.jsonl', 'train/valid_urls.jsonl', 'train_test_split.json'])
def test_a_file_of_two_splits_is_named(folder, name):
  with pytest.raises(UserError, match=rf'{name}: the path below .* names more than one split \(.*train'):
    local_folder.files_of(folder(name, ROWS[:1]))


def test_what_is_written_beside_data_is_none(folder):
  folder('train/data-0.json', ROWS[:1])
  for name in ('train/state.json', 'train/dataset_info.json', 'eval_results.json', 'training_args.json', 'train.py'):
    config = folder(name, ['{', '}'])
  found = local_folder.files_of(config)
  assert [path.name for path in found.of_split.pop('train')] == ['data-0.json'] and not found.of_split
  assert not any(found.passed_over.values())


def test_files_of_another_kind_are_told(folder):
  folder('train.csv', ['a,b'])
  with pytest.raises(UserError, match='expected files like train-00000.parquet or train.jsonl, found data-00000'):
    local_folder.files_of(folder('train/data-00000-of-00001.arrow', ['']))
  folder('TRAIN.JSONL', ROWS[:1])
  folder('part2.jsonl', ROWS[:1])
  found = local_folder.files_of(LocalFolderConfig(str(folder('trainer.txt', ['']).directory)))
  names = {reason: [path.name for path in paths] for reason, paths in found.passed_over.items()}
  assert names == {
    'files of another kind': ['data-00000-of-00001.arrow', 'train.csv'],
    'files of no split': ['part2.jsonl'],
  }


def test_a_link_that_leads_back_is_not_followed(folder, tmp_path):
  config = folder('train/0.jsonl', ROWS[:1])
  (tmp_path / 'train/back').symlink_to(tmp_path)
  assert [path.name for path in local_folder.files_of(config).of_split['train']] == ['0.jsonl']


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch):
  def refuse(path):
    raise PermissionError(13, 'Permission denied')

  config = folder('train.jsonl', ROWS[:1])
  monkeypatch.setattr(local_folder, '_walk', refuse)  # whoever runs the tests may be allowed everything
  with pytest.raises(UserError, match='cannot read .*: permission denied'):
    local_folder.files_of(config)


def test_a_file_is_not_read_twice(folder):
  folder('train.jsonl', ROWS[:1])
  with pytest.raises(UserError, match=r'train.jsonl: the folder also contains train.jsonl.gz; remove one'):
    local_folder.files_of(folder('train.jsonl.gz', ROWS[:1]))


def test_the_version_is_another_where_a_letter_is(folder):
  config = folder('train.jsonl', [{'inputs': 'a', 'targets': 'b'}])
  before = local_folder.version_of(config)
  assert local_folder.version_of(folder('train.jsonl', [{'inputs': 'a', 'targets': 'b'}])) == before
  assert local_folder.version_of(folder('train.jsonl', [{'inputs': 'a', 'targets': 'c'}])) != before


def test_lines_that_are_packed_are_read_and_a_file_that_is_cut_off_is_named(folder):
  config = folder('train.jsonl.gz', ROWS)
  files = local_folder.files_of(config).of_split['train']
  assert texts(config, files, 1, 3) == ROWS[1::3]
  files[0].write_bytes(files[0].read_bytes()[:-20])
  with pytest.raises(UserError, match='train.jsonl.gz: the gzip file is damaged: Compressed file ended'):
    texts(config, files, 0, 1)
  files[0].write_bytes(b'{"inputs": "a", "targets": "b"}')
  with pytest.raises(UserError, match='train.jsonl.gz: the gzip file is damaged: Not a gzipped file'):
    texts(config, files, 0, 1)


@pytest.mark.parametrize('name', ['train.parquet', 'train.jsonl'])
@pytest.mark.parametrize('parts', [1, 2, 7])
def test_parts_of_one_file_are_all_of_its_rows_in_order(folder, name, parts):
  config = folder(name, ROWS)
  files = local_folder.files_of(config).of_split['train']
  assert [texts(config, files, part, parts) for part in range(parts)] == [ROWS[part::parts] for part in range(parts)]


def test_parts_of_many_files_are_files(folder):
  for i in range(3):
    config = folder(f'train-{i}.jsonl', ROWS[10 * i : 10 * i + 10])
  files = local_folder.files_of(config).of_split['train']
  assert texts(config, files, 1, 2) == ROWS[10:20]


def test_a_column_alone_makes_running_text_and_may_be_empty(folder):
  config = LocalFolderConfig(folder('train.jsonl', [{'text': 'a'}, {'text': ''}]).directory, '', 'text')
  files = local_folder.files_of(config).of_split['train']
  assert texts(config, files, 0, 1) == [{'targets': 'a'}, {'targets': ''}]


def test_a_row_that_is_none_is_named_whatever_the_part(folder):
  config = folder('train.jsonl', [*map(json.dumps, ROWS[:5]), '{"inputs": }'])
  files = local_folder.files_of(config).of_split['train']
  with pytest.raises(UserError, match='train.jsonl, line 6 is not valid JSON at character'):
    list(local_folder.read(config, files, 1, 2))
  assert len(list(local_folder.read(config, files, 0, 2))) == 3


def test_a_file_in_the_place_of_the_folder_is_refused(folder, tmp_path):
  folder('train.jsonl', ROWS[:1])
  with pytest.raises(UserError, match='expected a folder, found the file'):
    local_folder.files_of(LocalFolderConfig(str(tmp_path / 'train.jsonl')))
  with pytest.raises(UserError, match=r'expected files like train-00000.parquet or train.jsonl, found none'):
    (tmp_path / 'empty').mkdir()
    local_folder.files_of(LocalFolderConfig(str(tmp_path / 'empty')))


@pytest.mark.parametrize(('name', 'where'), [('train.parquet', 'row 2'), ('train.jsonl', 'line 2')])
def test_white_space_alone_is_an_empty_text_and_every_row_says_where_it_stands(folder, name, where):
  config = folder(name, [{'inputs': 'a', 'targets': 'b'}, {'inputs': ' \n', 'targets': 'b'}])
  path = local_folder.files_of(config).of_split['train'][0]
  assert list(local_folder.read(config, [path], 0, 1))[1] == {
    'inputs': '',
    'targets': 'b',
    'record': f'{path}, {where}',
  }


def test_a_link_to_nothing_is_named(folder, tmp_path):
  config = folder('train-0.jsonl', ROWS[:1])
  (tmp_path / 'train-1.jsonl').symlink_to(tmp_path / 'nothing')
  with pytest.raises(UserError, match='cannot read .*train-1.jsonl: no such file'):
    local_folder.version_of(config)
