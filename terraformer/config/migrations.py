"""Converts stored configurations, as JSON and as gin, whose fields were renamed, moved or removed.

`docs/formats.md` has the table of what changed.
"""

import re
from typing import Any

from terraformer.config.base import expect
from terraformer.config.renames import present_names
from terraformer.config.words import flag

_C4 = {'kind': 'TfdsConfig', 'dataset': 'c4/en:3.1.0', 'inputs_field': '', 'targets_field': 'text'}
_PAPERS = {'kind': 'TfdsConfig', 'inputs_field': 'article', 'targets_field': 'abstract'}
# The source of each task that was formerly known only by its name.
_SOURCES = {
  'docstring_summarization': {'kind': 'DocstringSummariesConfig'},
  'docstring_text': {'kind': 'DocstringTextConfig'},
  'local_files': {'kind': 'LocalFilesConfig'},
  'local_folder': {'kind': 'LocalFolderConfig'},
  'decimal_copy': {'kind': 'DecimalCopyConfig'},
  'long_addition': {'kind': 'LongAdditionConfig'},
  'c4_span_corruption': _C4,
  'c4_lm': _C4,
  'c4_prefix_lm': _C4,
  'arxiv_summarization': _PAPERS | {'dataset': 'scientific_papers/arxiv:1.1.1'},
  'pubmed_summarization': _PAPERS | {'dataset': 'scientific_papers/pubmed:1.1.1'},
}
_OBJECTIVES = {'c4_span_corruption': 'SpanCorruptionConfig', 'c4_lm': 'LMConfig'}  # former defaults of these tasks
# The former field with the settings of each source.
_SETTINGS = {
  'LocalFilesConfig': 'local_files',
  'LocalFolderConfig': 'local_folder',
  'DecimalCopyConfig': 'digits',
  'LongAdditionConfig': 'digits',
}
_WAS_DEFAULT = 'docstring_summarization'
_GONE = ('task', 'local_files', 'local_folder', 'digits', 'tfds_directory')


def data_fields(fields: dict[str, Any]) -> dict[str, Any]:
  """Converts the fields of an old DataConfig, which named its task and held the settings of all sources."""
  task = fields['task']
  expect(isinstance(task, str), f'DataConfig.task: expected str, found {task!r:.80}')
  source = dict(_SOURCES.get(task) or {'kind': 'SeqioTaskConfig', 'name': task})
  settings = fields.get(_SETTINGS.get(source['kind'], ''))
  if isinstance(settings, dict):
    source = settings | source
  migrated = {name: value for name, value in fields.items() if name not in _GONE} | {'source': source}
  if source['kind'] == 'TfdsConfig':
    source['data_dir'] = fields.get('tfds_directory', '')
    migrated['name'] = task
  if task in _OBJECTIVES and not fields.get('objective'):
    migrated['objective'] = {'kind': _OBJECTIVES[task]}
  return migrated


def gin(text: str) -> str:
  """Converts the gin text stored with a run, as gin itself writes it (one binding per line)."""
  text = present_names(text)
  binding = re.compile(r'^(?P<prefix>[\w./]*)DataConfig\.(?P<field>\w+) = (?P<value>.*)\n', re.MULTILINE)
  found = {each['field']: each['value'] for each in binding.finditer(text)}
  if not found.keys() & set(_GONE):
    return text
  prefix = next(each['prefix'] for each in binding.finditer(text))
  task = found.get('task', repr(_WAS_DEFAULT)).strip('\'"')
  source = _SOURCES.get(task) or {'kind': 'SeqioTaskConfig', 'name': task}
  kind = source['kind']
  lines = [f'{prefix}DataConfig.source = @{prefix}{kind}()']
  lines += [f'{prefix}{kind}.{name} = {value!r}' for name, value in source.items() if name != 'kind']
  if kind == 'TfdsConfig':
    lines += [f'{prefix}DataConfig.name = {task!r}']
    lines += [f'{prefix}TfdsConfig.data_dir = {found["tfds_directory"]}'] if 'tfds_directory' in found else []
  if task in _OBJECTIVES and found.get('objective', 'None') == 'None':
    lines += [f'{prefix}DataConfig.objective = @{prefix}{_OBJECTIVES[task]}()']
  kept = binding.sub(lambda each: '' if each['field'] in _GONE else each[0], text)
  digits = kind if _SETTINGS.get(kind) == 'digits' else 'LongAdditionConfig'
  kept = re.sub(r'^([\w./]*)DigitsConfig\.', rf'\g<1>{digits}.', kept, flags=re.MULTILINE)
  return '\n'.join([kept, *lines, ''])


def _from(kind: str) -> str:
  return flag('DataConfig.source', f'@config.{kind}()')


_NOW = {
  'task': f'choose a source, as in {_from("LocalFilesConfig")}; a registered seqio task is '
  f'{_from("SeqioTaskConfig")} with {flag("SeqioTaskConfig.name", repr("NAME"))}',
  'local_files': f'it is now a source: {_from("LocalFilesConfig")}',
  'local_folder': f'it is now a source: {_from("LocalFolderConfig")}',
  'digits': f'the sources are now DecimalCopyConfig and LongAdditionConfig: {_from("LongAdditionConfig")}',
  'tfds_directory': 'it is now config.TfdsConfig.data_dir',
}


def present_field(kind: str, name: str) -> str | None:
  """Says what to write instead of a field that was replaced; returns None for other fields."""
  return _NOW.get(name) if kind == 'DataConfig' else None


def present_class(name: str) -> str | None:
  """Says what to write instead of a class that was replaced; returns None for other classes."""
  return 'it is now config.DecimalCopyConfig or config.LongAdditionConfig' if name == 'DigitsConfig' else None
