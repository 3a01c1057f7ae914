"""Converts configurations to gin text, so that commands can resume and export runs that Python code configured."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from terraformer.config import RunConfig
from terraformer.config.base import Checked


def as_gin(config: RunConfig) -> str:
  """Returns gin text that produces the configuration again.

  If a class occurs with different fields, all occurrences but the first have a gin scope, named by their path.
  """
  scopes: dict[Checked, str] = {}
  for path, part in _parts('', config):
    scopes.setdefault(part, path.replace('.', '_') if type(part) in map(type, scopes) else '')
  modules = dict.fromkeys(type(part).__module__ for part in scopes)
  imports = [f'import {module}' for module in modules if not _is_ours(module)]
  lines = ['from __gin__ import dynamic_registration', 'from terraformer import config', *imports]
  for part, scope in scopes.items():
    if bindings := list(_bindings(scope, part, scopes)):
      lines += ['', *bindings]
  return '\n'.join(lines) + '\n'


def _parts(path: str, config: Checked) -> Iterator[tuple[str, Checked]]:
  """Yields a config and all configs inside it, each with its path."""
  yield path, config
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if isinstance(value, Checked):
      yield from _parts(f'{path}.{field.name}'.strip('.'), value)


def _bindings(scope: str, config: Checked, scopes: dict[Checked, str]) -> Iterator[str]:
  """Yields a line for each field that is a config, or that needs a binding to have its value.

  Without a binding, a field has its default or, in a scope, the value that is bound without a scope.
  """
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    name = f'{_name(scope, type(config))}.{field.name}'
    if isinstance(value, Checked):
      yield f'{name} = @{_name(scopes[value], type(value))}()'
    elif scope or value != field.default:
      yield f'{name} = {_literal(value)}'


def _name(scope: str, kind: type) -> str:
  module = 'config' if _is_ours(kind.__module__) else kind.__module__
  return f'{scope}/{module}.{kind.__name__}' if scope else f'{module}.{kind.__name__}'


def _is_ours(module: str) -> bool:
  return module.startswith('terraformer.config.')


def _literal(value: Any) -> str:
  """Returns the value as a Python literal; infinity, which has none, becomes 1e999."""
  return re.sub(r'\binf\b', '1e999', repr(value)) if isinstance(value, float) else repr(value)
