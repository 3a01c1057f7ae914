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
      path.write_text('\n'.join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return LocalFolderConfig(str(tmp_path))

  return write


def texts(config, files, part, parts):
  return [
    {name: text for name, text in row.items() if name != 'record'}
    for row in local_folder.read(config, files, part, parts)
  ]


@pytest.mark.parametrize(
  'name, split',
  [
    ('data/train-00000-of-00001.parquet', 'train'),
    ('train.jsonl', 'train'),
    ('en/validation-00000-of-00002.parquet', 'validation'),
    ('dev.json', 'validation'),
    ('test/0000.parquet', 'test'),
  ],
)
def test_files_belong_to_the_split_that_their_path_names(folder, name, split):
  folder('train-1.jsonl', ROWS[:1])
  config = folder(name, ROWS[:1])
  folder('README.md', ['no data'])
  folder('.cache/train.jsonl', ['no data'])
  assert name.split('/')[-1] in [path.name for path in local_folder.files_of(config)[split]]
  assert sum(map(len, local_folder.files_of(config).values())) == 2


@pytest.mark.parametrize('name', ['train.parquet', 'train.jsonl'])
@pytest.mark.parametrize('parts', [1, 2, 7])
def test_parts_of_one_file_are_all_of_its_rows_in_order(folder, name, parts):
  config = folder(name, ROWS)
  files = local_folder.files_of(config)['train']
  assert [texts(config, files, part, parts) for part in range(parts)] == [ROWS[part::parts] for part in range(parts)]


def test_parts_of_many_files_are_files(folder):
  for i in range(3):
    config = folder(f'train-{i}.jsonl', ROWS[10 * i : 10 * i + 10])
  files = local_folder.files_of(config)['train']
  assert texts(config, files, 1, 2) == ROWS[10:20]


def test_a_column_alone_makes_running_text_and_may_be_empty(folder):
  config = LocalFolderConfig(folder('train.jsonl', [{'text': 'a'}, {'text': ''}]).directory, '', 'text')
  files = local_folder.files_of(config)['train']
  assert texts(config, files, 0, 1) == [{'targets': 'a'}, {'targets': ''}]


def test_a_row_that_is_none_is_named_whatever_the_part(folder):
  config = folder('train.jsonl', [*map(json.dumps, ROWS[:5]), '{"inputs": }'])
  files = local_folder.files_of(config)['train']
  with pytest.raises(UserError, match='train.jsonl, line 6: expected a JSON object, found'):
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
  path = local_folder.files_of(config)['train'][0]
  assert list(local_folder.read(config, [path], 0, 1))[1] == {
    'inputs': '',
    'targets': 'b',
    'record': f'{path}, {where}',
  }


def test_a_link_to_nothing_is_named(folder, tmp_path):
  config = folder('train-0.jsonl', ROWS[:1])
  (tmp_path / 'train-1.jsonl').symlink_to(tmp_path / 'nothing')
  with pytest.raises(UserError, match='train-1.jsonl: expected a file that can be read, found no such file'):
    local_folder.version_of(config)
