"""Says in the project's words what gin finds wrong with a line."""

import ast
import dataclasses
import re
import tokenize

from terraformer import config as config_lib
from terraformer.config import migrations, words
from terraformer.config.base import field_types
from terraformer.config.described import members

_VALUES = 'give a number, a quoted text, True, None, a list or @config.NAME()'
_CONSTANTS = ('True', 'False', 'None')
_FORM = 'write config.CLASS.FIELD = VALUE'
_REFERENCE = re.compile(r'=\s*((?:\w+/)?config\.\w+)\s*$')


def in_words(error: Exception, where: str) -> str:
  """Returns one sentence that begins with `where`, the flag, and the file and line if the error is in a file."""
  file, number, line = _place(error)
  if file:
    where = f'{where}, line {number}' if where.endswith(f' {file}') else f'{where}: {file}, line {number}'
  return f'{where}: {_what(error, line)}'


def _place(error: Exception) -> tuple[str, int, str]:
  """Returns file, number and text of the line; file and text are empty if they are unknown."""
  if isinstance(error, SyntaxError):
    return error.filename or '', error.lineno or 0, (error.text or '').strip()
  found = re.search(r'\n  In (?:file "(?P<file>.*)"|.*?),? line (?P<number>\d+)\n(?P<line>.*)', str(error))
  return (found['file'] or '', int(found['number']), found['line'].strip()) if found else ('', 0, '')


def _what(error: Exception, line: str) -> str:
  text = (error.msg if isinstance(error, SyntaxError) else str(error)).strip() or type(error).__name__
  if isinstance(error, tokenize.TokenError):
    return f'a {"quote" if "string" in text else "bracket"} is not closed'
  if token := re.search("Failed to parse token '(.*)'", text, re.DOTALL):
    return _no_value(token[1], line, text)
  if isinstance(error, SyntaxError):
    return _syntax(text, line)
  if name := re.match("'(.*)' was not provided by an import statement", text):
    return _unknown_module(name[1])
  if name := re.match(r"Couldn't resolve selector config\.([\w.]+); .* has no attribute", text):
    return _unknown_class(name[1], line)
  if name := re.match(r"Configurable '(?:.*/)?(?:config\.)?([\w.]+)' doesn't have a parameter named '(.*)'", text):
    return _unknown_field(name[1], name[2])
  if name := re.match(r"'(\w+)' object has no attribute '__call__'", text):
    return f'a field of {name[1]} has the name config.{name[1]}.FIELD'
  if text.startswith('not enough values to unpack'):
    return f'{_FORM}; this has no field'
  return text.splitlines()[0].rstrip('.')


def _no_value(token: str, line: str, text: str) -> str:
  if kind := _REFERENCE.search(line):
    return f'{kind[1]} is not a value; write @{kind[1]}()'
  if token.lstrip('-')[:1].isdigit():
    return f'{token[:40]} is not a value: {text.splitlines()[0]}'
  value = line.partition('=')[2].strip()
  constant = token.capitalize()
  whole = value if value.startswith(token) else token
  return (
    f"'{whole[:80]}' is not a value; {f'write {constant}' if whole == token and constant in _CONSTANTS else _VALUES}"
  )


def _syntax(text: str, line: str) -> str:
  _, sign, value = line.partition('=')
  value = value.strip()
  if text.startswith("Expected ',' or"):
    return f'{value}: {text[0].lower()}{text[1:].rstrip(".")}'
  if sign and text.startswith('Unable to parse value'):
    return f'{value or "nothing"} is not a value; {_VALUES}'
  if sign and text == 'Expected newline.' and not _is_literal(value):
    return f'{value} is not one value; {_VALUES}'
  return _FORM


def _is_literal(text: str) -> bool:
  try:
    ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return False
  return True


def _unknown_module(name: str) -> str:
  kinds = _kinds()
  if (found := words.resembling(name, kinds)) and name.endswith('Config'):
    return f'{name}: write config.{found[0]} (names of configurations start with config.)'
  if words.resembling(name, ['config']):
    return f'{name}: did you mean config?'
  return (
    f'{name} is unknown; names of configurations start with config., and those of a module of your own need '
    f'--module={name}, or a gin file with the line: import {name}'
  )


def _unknown_class(name: str, line: str) -> str:
  """Names the family of the field that the class is for; otherwise the classes that the name resembles."""
  present = migrations.present_class(name)
  if present:
    return f'there is no config.{name}; {present}'
  if (own := name.rpartition('.')[2]) in _kinds():
    return f'config.{name}: write config.{own}'
  known = _family_of(line) or _kinds()
  if len(known) > 12 and not words.resembling(name, known):
    return f'there is no config.{name}; docs/guides/configuration.md lists the configurations'
  return f'there is no config.{name}; {words.meant(name, known, "this field takes", "config.")}'


def _family_of(line: str) -> list[str]:
  """Returns the classes that the field of a binding takes, if they are a family."""
  bound = re.match(r'(?:\w+/)?config\.(\w+)\.(\w+)\s*=', line)
  kind = getattr(config_lib, bound[1], None) if bound else None
  if bound is None or not dataclasses.is_dataclass(kind):
    return []
  return members(field_types(kind).get(bound[2]))


def _unknown_field(kind: str, name: str) -> str:
  if present := migrations.present_field(kind, name):
    return f'{kind} has no field {name!r}; {present}'
  found = getattr(config_lib, kind, None)
  if not dataclasses.is_dataclass(found):
    return f'{kind} has no field {name!r}'
  fields = [field.name for field in dataclasses.fields(found)]
  if not fields:
    return f'{kind} has no field {name!r}, and no other'
  return f'{kind} has no field {name!r}; {words.meant(name, fields, "its fields are")}'


def _kinds() -> list[str]:
  return [name for name in config_lib.__all__ if dataclasses.is_dataclass(getattr(config_lib, name))]
