"""The values that a `config.gin` of trax states, read without gin: nothing in the file is imported or run.

A line binds a value, `scope/Class.field = value`, or a macro, `name = value`. Values are Python's literals, macros
(`%name`) and references (`@scope/function`). Other lines are skipped.
"""

import ast
import dataclasses
import re
from pathlib import Path
from typing import Any

from terraformer.config import UserError, unreadable

_MOST_BYTES = 1 << 22
_LONGEST_VALUE = 10_000  # characters
_BINDING = re.compile(
  r'(?:(?P<scope>[\w./]+)/)?(?:[\w.]+\.)?(?P<section>\w+)\.(?P<field>\w+)\s*=\s*(?P<value>.*)', re.DOTALL
)
_MACRO = re.compile(r'(?P<name>[\w./]+)\s*=\s*(?P<value>.*)', re.DOTALL)
_NAME_OR_STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|(?P<mark>[@%])(?P<name>[\w./]+)(?:\(\))?""")
_MOST_MACROS = 20  # that refer to each other


@dataclasses.dataclass(frozen=True)
class Reference:
  """A function or class that a value names.

  Attributes:
    name: without its module.
    scope: in which its own values are looked up first; empty for none.
  """

  name: str
  scope: str = ''


@dataclasses.dataclass(frozen=True)
class Unread:
  """A value in a form that this reader does not know.

  Attributes:
    text: as it stands in the file.
  """

  text: str


@dataclasses.dataclass(frozen=True)
class _Macro:
  """The value of a macro, which may be defined further down."""

  name: str


class GinValues:
  """The values of a file.

  Attributes:
    name: of the file.
    skipped: its lines that could not be read; where a value in one of them is needed, that is an error.
  """

  def __init__(self, text: str, name: str):
    self.name = name
    self.skipped: list[str] = []
    self._macros: dict[str, Any] = {}
    self._values: dict[tuple[str, str, str], Any] = {}
    for line in _statements(text):
      self._read(line)

  @classmethod
  def open(cls, path: Path) -> 'GinValues':
    """Reads a file.

    Raises:
      UserError: if it cannot be read, or is not a text of the size that such a file has.
    """
    try:
      if path.stat().st_size > _MOST_BYTES:
        raise UserError(f'{path}: a config.gin has at most {_MOST_BYTES:,} bytes, but this file is larger')
      text = path.read_text(encoding='utf-8')
    except OSError as error:
      raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
      raise UserError(f'{path}: this is not a text in UTF-8, as a config.gin is') from error
    return cls(text, str(path))

  def sections(self) -> set[str]:
    """Names of the classes and functions for which there are values."""
    return {section for _, section, _ in self._values}

  def fields(self, section: str) -> list[str]:
    """Names of the fields of a section, in any scope."""
    return sorted({field for _, named, field in self._values if named == section})

  def get(self, section: str, field: str, default: Any = None, scope: str = '') -> Any:
    """Returns a value: of the scope if it has one, otherwise of no scope, otherwise the default.

    Raises:
      UserError: if the value has a form that this reader does not know.
    """
    for where in dict.fromkeys((scope, '')):
      if (where, section, field) in self._values:
        return self._resolved(self._values[where, section, field], f'{section}.{field}')
    return default

  def anywhere(self, section: str, field: str) -> Any:
    """Returns a value of no scope, otherwise of any; None if there is none or its form is not known."""
    found = [value for (_, *name), value in sorted(self._values.items(), key=_scope_first) if name == [section, field]]
    try:
      return self._resolved(found[0], field) if found else None
    except UserError:
      return None

  def _resolved(self, value: Any, field: str) -> Any:
    """A value with those of its macros in their places."""
    for _ in range(_MOST_MACROS):
      if not isinstance(value, _Macro):
        break
      value = self._macros.get(value.name, Unread(f'%{value.name}, which is not defined'))
    if isinstance(value, (Unread, _Macro)):
      text = value.text if isinstance(value, Unread) else f'%{value.name}, which is defined by itself'
      raise UserError(f'{self.name}: cannot read the value of {field}, which is {text:.100}')
    if isinstance(value, dict):
      return {key: self._resolved(each, field) for key, each in value.items()}
    return type(value)(self._resolved(each, field) for each in value) if type(value) in (tuple, list) else value

  def _read(self, line: str) -> None:
    if line.startswith(('import ', 'from ')):
      return
    found = _BINDING.fullmatch(line) or _MACRO.fullmatch(line)
    value = Unread(line) if found is None else _value(found['value'])
    if isinstance(value, Unread):
      self.skipped.append(line)
    if found is None:
      return
    if found.re is _BINDING:
      self._values[found['scope'] or '', found['section'], found['field']] = value
    else:
      self._macros[found['name']] = value


def _scope_first(item: tuple[tuple[str, str, str], Any]) -> str:
  return item[0][0]


def _statements(text: str) -> list[str]:
  """The file's statements without comments, each in one line: those within brackets, or behind a backslash, go on."""
  statements, open_line = [], ''
  for line in text.splitlines():
    open_line = f'{open_line} {line.strip()}'.strip() if open_line else line.strip()
    if open_line.startswith('#'):
      open_line = ''
    elif open_line.endswith('\\'):
      open_line = open_line[:-1].strip()
    elif not _is_open(open_line) or len(open_line) > _LONGEST_VALUE:
      statements += [open_line] if open_line else []
      open_line = ''
  return statements + ([open_line] if open_line else [])


def _is_open(line: str) -> bool:
  """Whether brackets of a line are not closed; what strings contain does not count."""
  bare = re.sub(r"'[^']*'|\"[^\"]*\"|#.*", '', line)
  return sum(bare.count(each) for each in '([{') > sum(bare.count(each) for each in ')]}')


def _value(text: str) -> Any:
  """The value that a text stands for."""
  if len(text) > _LONGEST_VALUE:
    return Unread(f'{text[:50]}...')
  try:
    return _with_names(ast.literal_eval(_NAME_OR_STRING.sub(_quoted, text.strip())))
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    return Unread(text.strip())


def _quoted(match: re.Match) -> str:
  """A name as a literal that `_with_names` recognizes, a string as it is."""
  return repr({match['mark']: match['name']}) if match['mark'] else match[0]


def _with_names(value: Any) -> Any:
  if isinstance(value, dict):
    if value.keys() == {'@'}:
      scope, _, path = value['@'].rpartition('/')
      return Reference(path.rpartition('.')[2], scope)
    if value.keys() == {'%'}:
      return _Macro(value['%'])
    return {key: _with_names(each) for key, each in value.items()}
  return type(value)(map(_with_names, value)) if type(value) in (tuple, list) else value
