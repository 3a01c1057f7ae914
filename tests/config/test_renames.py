"""Old names of classes and fields are read, in stored JSON, in stored gin and in users' gin files."""

import pytest

from terraformer.cli import load_configs
from terraformer.config import DataConfig, DecodeConfig, TokenizerConfig, TrainConfig, from_dict, migrations, to_dict
from terraformer.config.renames import present_names

OLD_DATA = {'kind': 'DataConfig', 'vocabulary': {'kind': 'VocabularyConfig', 'size': 450}}
OLD_GIN = 'config.VocabularyConfig.size = 450\nconfig.TrainConfig.watch_every = 7\n'


def test_stored_json_has_the_present_names():
  read = from_dict(OLD_DATA)
  assert read == DataConfig(tokenizer=TokenizerConfig(size=450))
  assert to_dict(read)['tokenizer']['kind'] == 'TokenizerConfig' and 'vocabulary' not in to_dict(read)
  assert from_dict({'kind': 'TrainConfig', 'watch_every': 7}) == TrainConfig(diagnostics_every=7)


def test_stored_gin_has_the_present_names_without_a_word(capsys):
  present = migrations.gin(OLD_GIN + 'config.DataConfig.vocabulary = @config.VocabularyConfig()\n')
  assert present == (
    'config.TokenizerConfig.size = 450\nconfig.TrainConfig.diagnostics_every = 7\n'
    'config.DataConfig.tokenizer = @config.TokenizerConfig()\n'
  )
  assert capsys.readouterr().err == ''


@pytest.mark.parametrize('in_a_file', [True, False])
def test_a_users_gin_says_the_new_name_once(in_a_file, tmp_path, capsys):
  if in_a_file:
    file = tmp_path / 'old.gin'
    file.write_text('from __gin__ import dynamic_registration\nfrom terraformer import config\n' + OLD_GIN)
    run, _, _ = load_configs([str(file)], [])
  else:
    run, _, _ = load_configs([], OLD_GIN.splitlines())
  assert run.data.tokenizer.size == 450 and run.train.diagnostics_every == 7
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 2
  for old, new in (
    ('TrainConfig.watch_every', 'TrainConfig.diagnostics_every'),
    ('VocabularyConfig', 'TokenizerConfig'),
  ):
    assert any(f'{old} is now called {new}; the old name still works' in line for line in lines)


@pytest.mark.parametrize('old, new', [(True, 'bfloat16'), (False, 'float32')])
def test_the_type_of_the_cache_was_a_flag(old, new):
  stored = {name: value for name, value in to_dict(DecodeConfig()).items() if name != 'cache_dtype'}
  assert from_dict(stored | {'bfloat16_cache': old}) == DecodeConfig(cache_dtype=new)
  lines = []
  text = present_names(f'config.DecodeConfig.bfloat16_cache={old}', lines.append)
  assert text == f"config.DecodeConfig.cache_dtype = '{new}'" and len(lines) == 1
