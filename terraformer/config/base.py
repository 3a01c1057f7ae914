"""What every config can do: check its fields when it is built, and turn into JSON and back."""

import dataclasses
import os
import re
import types
import typing
from typing import Any

_LONGEST_MESSAGE = 1000  # characters
_DEEPEST = 16  # levels of configs within configs


class UserError(ValueError):
  """Bad input: its message is one sentence that says what was expected and what was found.

  Whatever the input puts into it, the message is one line that can be printed, and not a long one.
  """

  def __init__(self, message: str):
    super().__init__(_one_line(message))


def _one_line(message: str) -> str:
  """The message with escapes in the place of what cannot be printed, and with dots in the place of what is too long."""
  text = message.split('\n  ')[0]  # on indented lines gin adds where it was
  half = _LONGEST_MESSAGE // 2
  text = text if len(text) <= _LONGEST_MESSAGE else f'{text[:half]} ... {text[-half:]}'
  return ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)


def refused(path: str | os.PathLike, expected: str, error: OSError) -> UserError:
  """What is said where the system refuses what is to be done with a path."""
  return UserError(f'{path}: expected {expected}, found {(error.strerror or str(error)).lower()}')


def unreadable(path: str | os.PathLike, error: OSError) -> UserError:
  """The same of a file that is to be read."""
  return refused(path, 'a file that can be read', error)


def expect(condition: bool, message: str) -> None:
  if not condition:
    raise UserError(message)


def divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
  """Raises UserError unless `value` is a multiple of `divisor`."""
  expect(value % divisor == 0, f'{name}: expected a multiple of {divisor_name} ({divisor}), found {value}')


def _admits(annotation: Any, value: Any) -> bool:
  """Whether `value` is of the annotated type; an int is taken for a float, a bool for neither."""
  origin = typing.get_origin(annotation)
  if origin in (typing.Union, types.UnionType):
    return any(_admits(option, value) for option in typing.get_args(annotation))
  if origin is tuple:
    return isinstance(value, tuple) and all(_admits(typing.get_args(annotation)[0], item) for item in value)
  if annotation is float:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
  if annotation is int:
    return isinstance(value, int) and not isinstance(value, bool)
  return isinstance(value, annotation)


class Checked:
  """A config whose fields are checked against their annotations before its own `check`."""

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if typing.get_origin(field.type) is tuple and isinstance(value, list):
        value = tuple(value)
        object.__setattr__(self, field.name, value)
      if not _admits(field.type, value):
        expected = getattr(field.type, '__name__', None) if isinstance(field.type, type) else str(field.type)
        expected = re.sub(r'terraformer\.config\.\w+\.', '', expected)
        raise UserError(f'{type(self).__name__}.{field.name}: expected {expected}, found {value!r}')
    self.check()

  def check(self) -> None:
    """Raises UserError where the fields contradict each other."""

  def _at_least(self, least: float, *names: str) -> None:
    for name in names:
      value = getattr(self, name)
      expect(value >= least, f'{type(self).__name__}.{name}: expected at least {least}, found {value}')

  def _probability(self, *names: str) -> None:
    for name in names:
      value = getattr(self, name)
      expect(0 <= value <= 1, f'{type(self).__name__}.{name}: expected a number from 0 to 1, found {value}')


def to_dict(config: Checked) -> dict[str, Any]:
  """The config as plain JSON values; `kind` names each dataclass."""

  def encode(value):
    if isinstance(value, Checked):
      return to_dict(value)
    return list(value) if isinstance(value, tuple) else value

  return {'kind': type(config).__name__} | {f.name: encode(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _kinds(base: type) -> dict[str, type]:
  """Every config by its name."""
  kinds = {}
  for kind in base.__subclasses__():
    kinds |= {kind.__name__: kind} | _kinds(kind)
  return kinds


def from_dict(values: dict[str, Any]) -> Any:
  """The config that `to_dict` wrote.

  Raises:
    UserError: if a kind or a field is not known, or a value is not valid.
  """
  expect(isinstance(values, dict), f'config: expected an object, found {values!r:.80}')
  try:
    return _built(values, _DEEPEST)
  except UserError as error:
    raise UserError(str(error)) from error  # in a line, where gin has added its own


def _built(values: dict[str, Any], levels: int) -> Any:
  """The config of an object that has at most so many levels of others in it."""
  expect(levels > 0, f'config: expected at most {_DEEPEST} configs within each other, found more')
  fields = dict(values)
  name = fields.pop('kind', None)
  kind = _kinds(Checked).get(name) if isinstance(name, str) else None
  expect(kind is not None, f'config: expected a kind of this version, found {name!r:.80}')
  known = {f.name for f in dataclasses.fields(kind)}
  for name in fields:
    expect(name in known, f'{kind.__name__}: expected fields {sorted(known)}, found {name!r}')
  missing = sorted(known - fields.keys())
  expect(not missing, f'{kind.__name__}: expected the field {missing[0] if missing else None!r}, found none')
  return kind(**{name: _built(v, levels - 1) if isinstance(v, dict) else v for name, v in fields.items()})


def differences(stored: Checked, given: Checked, prefix: str = '') -> list[str]:
  """One `path: stored -> given` for every field in which two configs of one kind differ."""
  found = []
  for field in dataclasses.fields(stored):
    path, old, new = f'{prefix}{field.name}', getattr(stored, field.name), getattr(given, field.name)
    if isinstance(old, Checked) and type(old) is type(new):
      found += differences(old, new, f'{path}.')
    elif old != new:
      found.append(f'{path}: {old!r} -> {new!r}')
  return found
