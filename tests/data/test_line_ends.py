"""Only a newline, a carriage return or both end a line of a user's text, not what else `str.splitlines` cuts at."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from terraformer.config import LocalFilesConfig, LocalFolderConfig
from terraformer.data import local_files, local_folder
from terraformer.decode.source import read_prompts

NO_ENDS = ['\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\x85', '\u2028', '\u2029']
NAMES = [f'U+{ord(character):04X}' for character in NO_ENDS]
each = pytest.mark.parametrize('character', NO_ENDS, ids=NAMES)


def rows(path):
  return local_files.local_files(LocalFilesConfig((str(path),), *2 * [(_other(path),)]))['train']


def _other(path):
  """A file of the same kind that is held out, so that nothing of `path` is."""
  other = path.with_name(f'other{path.suffix}')
  other.write_text('{"inputs": "x", "targets": "y"}' if path.suffix == '.jsonl' else 'x')
  return str(other)


@each
def test_a_paragraph_goes_on_after_what_ends_no_line(tmp_path, character):
  path = tmp_path / 'a.txt'
  text = f'one{character}two\n{character}three{character}{character}\nfour'
  path.write_bytes(f'{text}\n\nfive{character}\n'.encode())
  assert rows(path) == [
    {'targets': text, 'record': f'{path}, line 1'},
    {'targets': f'five{character}', 'record': f'{path}, line 5'},
  ]


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
def test_lines_of_text_end_in_three_ways(tmp_path, end):
  path = tmp_path / 'a.txt'
  path.write_bytes(end.join(['one', 'two', '', ' ', 'three', '']).encode())
  assert rows(path) == [
    {'targets': 'one\ntwo', 'record': f'{path}, line 1'},
    {'targets': 'three', 'record': f'{path}, line 5'},
  ]


def _json_lines(character, end='\n'):
  """Two rows whose texts have a character, as it is wherever JSON allows that."""
  made = [
    {'inputs': f'a{character}{character}b', 'targets': f'c{character}'},
    {'inputs': 'd', 'targets': character + 'e'},
  ]
  return made, ''.join(json.dumps(row, ensure_ascii=False) + end for row in made).encode()


def _without_place(found):
  return [{name: text for name, text in row.items() if name != 'record'} for row in found]


@each
@pytest.mark.parametrize('end', ['\n', '\r\n'])
def test_rows_of_json_lines(tmp_path, character, end):
  path = tmp_path / 'train.jsonl'
  made, data = _json_lines(character, end)
  path.write_bytes(data)
  found = rows(path)
  assert _without_place(found) == made and found[1]['record'].endswith('line 2')
  assert read_prompts(None, str(path), None, 'inputs') == [row['inputs'] for row in made]


@each
@pytest.mark.parametrize('kind', ['jsonl', 'jsonl.gz', 'parquet'])
def test_rows_of_a_folder(tmp_path, character, kind):
  path = tmp_path / f'train.{kind}'
  made, data = _json_lines(character)
  if kind == 'parquet':
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(made), path)
  else:
    path.write_bytes(gzip.compress(data) if kind == 'jsonl.gz' else data)
  config = LocalFolderConfig(str(tmp_path))
  found = list(local_folder.read(config, local_folder.files_of(config).of_split['train'], 0, 1))
  assert _without_place(found) == made and found[1]['record'].endswith(' 2')
