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
_REFERENCE = re.compile(r'@(?:(?P<scope>[\w./]+)/)?(?:[\w.]+\.)?(?P<name>\w+)(?:\(\))?')
_MOST_MACROS = 20  # that refer to each other
_UNKNOWN = object()


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


class GinValues:
  """The values of a file.

  Attributes:
    name: of the file.
    skipped: its lines that could not be read.
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
    found = [value for (_, *name), value in sorted(self._values.items()) if name == [section, field]]
    value = self._resolved(found[0], field, strict=False) if found else None
    return None if isinstance(value, Unread) else value

  def _resolved(self, value: Any, field: str, strict: bool = True) -> Any:
    for _ in range(_MOST_MACROS):
      if not (isinstance(value, Unread) and value.text.startswith('%')):
        break
      value = self._macros.get(value.text[1:], Unread(f'the undefined {value.text}'))
    if strict and isinstance(value, Unread):
      raise UserError(f'{self.name}: cannot read the value of {field}, which is {value.text:.100}')
    return value

  def _read(self, line: str) -> None:
    if line.startswith(('import ', 'from ')):
      return
    binding, macro = _BINDING.fullmatch(line), _MACRO.fullmatch(line)
    value = _value((binding or macro)['value']) if binding or macro else _UNKNOWN
    if value is _UNKNOWN:
      self.skipped.append(line)
    elif binding:
      self._values[binding['scope'] or '', binding['section'], binding['field']] = value
    else:
      self._macros[macro['name']] = value


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
  """The value that a text stands for; `_UNKNOWN` for a text that is no value of gin."""
  text = text.strip()
  if reference := _REFERENCE.fullmatch(text):
    return Reference(reference['name'], reference['scope'] or '')
  if len(text) > _LONGEST_VALUE:
    return _UNKNOWN
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    return Unread(text) if re.match(r'[%@\[({]', text) else _UNKNOWN
