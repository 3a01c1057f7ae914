"""Configurations of before data sources were chosen by their type, as JSON and as gin."""

import dataclasses

import pytest

from terraformer.cli import load_configs
from terraformer.config import (
  DataConfig,
  DecimalCopyConfig,
  DocstringSummariesConfig,
  DocstringTextConfig,
  LMConfig,
  LocalFilesConfig,
  LocalFolderConfig,
  LongAdditionConfig,
  PrefixLMConfig,
  SeqioTaskConfig,
  SpanCorruptionConfig,
  TfdsConfig,
  UserError,
  from_dict,
  migrations,
)

SETTINGS = {
  'local_files': {'kind': 'LocalFilesConfig', 'train': ['a.jsonl'], 'inputs_field': 'long'},
  'local_folder': {'kind': 'LocalFolderConfig', 'directory': 'b'},
  'digits': {'kind': 'DigitsConfig', 'seed': 4, 'train_examples': 9},
  'tfds_directory': 'gs://c',
}
GIN = """from __gin__ import dynamic_registration
from terraformer import config

# Parameters for config.DataConfig:
# ==============================================================================
config.DataConfig.digits = @config.DigitsConfig()
config.DataConfig.inputs_length = {inputs}
config.DataConfig.local_files = @config.LocalFilesConfig()
config.DataConfig.local_folder = @config.LocalFolderConfig()
{objective}config.DataConfig.targets_length = 400
{task}config.DataConfig.tfds_directory = 'gs://c'

# Parameters for config.DigitsConfig:
# ==============================================================================
config.DigitsConfig.seed = 4
config.DigitsConfig.train_examples = 9

# Parameters for config.LocalFilesConfig:
# ==============================================================================
config.LocalFilesConfig.inputs_field = 'long'
config.LocalFilesConfig.train = ('a.jsonl',)

# Parameters for config.LocalFolderConfig:
# ==============================================================================
config.LocalFolderConfig.directory = 'b'
"""
C4 = TfdsConfig('c4/en:3.1.0', 'gs://c')
PAPERS = TfdsConfig('scientific_papers/arxiv:1.1.1', 'gs://c', 'article', 'abstract')


@pytest.mark.parametrize(
  'task, objective, expected',
  [
    ('docstring_summarization', None, DataConfig(DocstringSummariesConfig())),
    ('docstring_text', 'SpanCorruptionConfig', DataConfig(DocstringTextConfig(), objective=SpanCorruptionConfig())),
    ('local_files', None, DataConfig(LocalFilesConfig(('a.jsonl',), inputs_field='long'))),
    ('local_folder', 'PrefixLMConfig', DataConfig(LocalFolderConfig('b'), objective=PrefixLMConfig())),
    ('decimal_copy', None, DataConfig(DecimalCopyConfig(seed=4, train_examples=9))),
    ('long_addition', None, DataConfig(LongAdditionConfig(seed=4, train_examples=9))),
    ('c4_span_corruption', None, DataConfig(C4, objective=SpanCorruptionConfig(), name='c4_span_corruption')),
    ('c4_span_corruption', 'PrefixLMConfig', DataConfig(C4, objective=PrefixLMConfig(), name='c4_span_corruption')),
    ('c4_lm', None, DataConfig(C4, inputs_length=0, objective=LMConfig(), name='c4_lm')),
    ('c4_prefix_lm', None, DataConfig(C4, name='c4_prefix_lm')),
    ('arxiv_summarization', None, DataConfig(PAPERS, name='arxiv_summarization')),
    ('mine', None, DataConfig(SeqioTaskConfig('mine'))),
  ],
)
def test_a_task_by_name_becomes_its_source(task, objective, expected):
  inputs = 0 if task == 'c4_lm' else 900
  fields = {'inputs_length': inputs, 'targets_length': 400, 'objective': objective and {'kind': objective}}
  migrated = from_dict({'kind': 'DataConfig', 'task': task} | fields | SETTINGS)
  assert migrated == dataclasses.replace(expected, inputs_length=inputs, targets_length=400)
  assert migrated.task == task  # so that what is prepared is found where it lies
  bound = f'config.DataConfig.objective = @config.{objective}()\n' if objective else ''
  text = migrations.gin(GIN.format(inputs=inputs, objective=bound, task=f"config.DataConfig.task = '{task}'\n"))
  assert load_configs([], [], text)[0].data == migrated


def test_gin_without_a_task_has_the_one_that_was_the_default():
  text = migrations.gin(GIN.format(inputs=900, objective='', task=''))
  assert load_configs([], [], text)[0].data.source == DocstringSummariesConfig()


def test_gin_of_this_version_stays_as_it_is():
  text = load_configs([], ['config.DataConfig.source = @config.LocalFilesConfig()'])[2]
  assert migrations.gin(text) == text


@pytest.mark.parametrize('task', [3, None, [], {}])
def test_a_damaged_task_is_refused(task):
  with pytest.raises(UserError, match='DataConfig.task: expected str, found'):
    from_dict({'kind': 'DataConfig', 'task': task})


@pytest.mark.parametrize(
  'binding, now',
  [
    ("config.DataConfig.task = 'local_files'", 'DataConfig.source = @config.LocalFilesConfig'),
    ('config.DataConfig.local_folder = @config.LocalFolderConfig()', 'DataConfig.source = @config.LocalFolderConfig'),
    ("config.DataConfig.tfds_directory = 'a'", 'TfdsConfig.data_dir'),
    ('config.DigitsConfig.seed = 3', 'config.DecimalCopyConfig or config.LongAdditionConfig'),
    ('config.DataConfig.digits = @config.DigitsConfig()', 'config.DecimalCopyConfig or config.LongAdditionConfig'),
  ],
)
def test_a_binding_that_is_no_more_says_what_to_write(binding, now):
  with pytest.raises(UserError, match=now):
    load_configs([], [binding])


def test_another_unknown_field_is_named_alone():
  with pytest.raises(UserError, match="DataConfig has no field 'tasks'; its fields are source, .*inputs_eos$"):
    load_configs([], ["config.DataConfig.tasks = 'a'"])
