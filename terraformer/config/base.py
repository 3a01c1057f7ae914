"""What every config can do: check its fields when it is built, and turn into JSON and back."""

import builtins
import dataclasses
import functools
import importlib
import math
import os
import re
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, ClassVar

from terraformer.config import renames

# What arrays hold, and what JAX counts steps, positions and places of an array in.
_LEAST_INT, _MOST_INT = -(2**31), 2**31 - 1
# Of float32; what is smaller is flushed to 0 by the compiler, and then divided by.
_LEAST_FLOAT, _MOST_FLOAT = 2.0**-126, 2.0**128 - 2.0**104
# Of one dimension of a parameter. No machine holds more, and products of several must fit 64 bits.
_LARGEST_SIZE = 2**22
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
  return printable(text)


def printable(text: str) -> str:
  """The text as one line that has a form in UTF-8: escapes stand for what has none, and for line breaks."""
  return ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)


def refused(path: str | os.PathLike, expected: str, error: OSError) -> UserError:
  """What is said where the system refuses what is to be done with a path."""
  return UserError(f'{path}: expected {expected}, found {(error.strerror or str(error)).lower()}')


def unreadable(path: str | os.PathLike, error: OSError) -> UserError:
  """The same of a file that is to be read."""
  return refused(path, 'a file that can be read', error)


def first_line(error: object) -> str:
  """The first line of what an error, or a text, says; the name of the error's type where it says nothing."""
  return (str(error).strip() or type(error).__name__).splitlines()[0]


def expect(condition: bool, message: str) -> None:
  if not condition:
    raise UserError(message)


def divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
  """Raises UserError unless `value` is a multiple of `divisor`."""
  expect(value % divisor == 0, f'{name}: expected a multiple of {divisor_name} ({divisor}), found {value}')


def _options(annotation: Any) -> tuple[Any, ...]:
  """The members of a union; of another annotation itself."""
  is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
  return typing.get_args(annotation) if is_union else (annotation,)


def _admits(annotation: Any, value: Any) -> bool:
  """Whether `value` is of the annotated type; an int is taken for a float, a bool for neither."""
  if annotation is float:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
  if annotation is int:
    return isinstance(value, int) and not isinstance(value, bool)
  if isinstance(annotation, type):
    return annotation is Any or isinstance(value, annotation)
  origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
  if origin in (typing.Union, types.UnionType):
    return any(_admits(option, value) for option in arguments)
  if origin is tuple:
    each = arguments[:1] * len(value) if arguments[-1:] == (...,) and isinstance(value, tuple) else arguments
    return isinstance(value, tuple) and len(value) == len(each) and all(map(_admits, each, value))
  if origin is typing.Literal:
    return value in arguments
  return isinstance(value, origin or annotation)


def _is_text(annotation: Any) -> bool:
  """Whether an annotation, or a part of it, is text, as all are after `from __future__ import annotations`."""
  if typing.get_origin(annotation) is typing.Literal:
    return False
  return isinstance(annotation, (str, typing.ForwardRef)) or any(map(_is_text, typing.get_args(annotation)))


@functools.cache
def _field_types(kind: type) -> dict[str, Any]:
  """The types of a config's fields, by name.

  Raises:
    UserError: if an annotation names something that its module does not have when the first config is built.
  """
  return {field.name: _field_type(kind, field) for field in dataclasses.fields(kind)}


def _field_type(kind: type, field: dataclasses.Field) -> Any:
  if not _is_text(field.type):  # almost always; to read the others takes longer than to build a config
    return field.type
  owner = [base for base in kind.__mro__ if vars(base).get('__dataclass_fields__', {}).get(field.name) is field][-1]
  # The class counts least, since a field may have the name of a type (`bytes: bytes = b''`).
  names = {**vars(owner), **vars(builtins), **vars(sys.modules.get(owner.__module__, builtins))}
  holder = type('holder', (), {'__annotations__': {field.name: field.type}})
  try:
    return typing.get_type_hints(holder, {}, names)[field.name]
  except (NameError, AttributeError, SyntaxError, TypeError) as error:
    raise UserError(
      f'{kind.__name__}.{field.name}: its annotation {field.type!r} cannot be read when the program runs ({error}); '
      f'import the names that it needs in {owner.__module__}, and not under TYPE_CHECKING alone'
    ) from error


class Checked:
  """A config whose fields are checked against their annotations before its own `check`.

  Numbers are those that 32 bits hold: whole ones int32, others float32, finite, and 0 or normal. `_wide` names fields
  that take more: whole numbers of 64 bits, and any other number but nan.
  """

  _wide: ClassVar[tuple[str, ...]] = ()
  __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]  # every kind of config is a dataclass

  def __post_init__(self):
    for name, annotation in _field_types(type(self)).items():
      value = getattr(self, name)
      if isinstance(value, list) and tuple in [typing.get_origin(option) or option for option in _options(annotation)]:
        value = tuple(value)
        object.__setattr__(self, name, value)
      if not _admits(annotation, value):
        expected = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        expected = re.sub(r'terraformer\.config\.\w+\.', '', expected)
        raise UserError(f'{type(self).__name__}.{name}: expected {expected}, found {value!r}')
    self._check_numbers()
    self.check()

  def check(self) -> None:
    """Raises UserError where the fields contradict each other."""

  def _check_numbers(self) -> None:
    for name, annotation in _field_types(type(self)).items():
      value = getattr(self, name)
      is_float = float in (*_options(annotation), *typing.get_args(annotation))
      for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, (int, float)) and not isinstance(number, bool):
          expected = _float_range if is_float else _int_range
          wrong = expected(number, name in self._wide)
          expect(wrong is None, f'{type(self).__name__}.{name}: expected {wrong}, found {shown(number)}')
      if is_float and type(value) is int and int not in _options(annotation):
        object.__setattr__(self, name, float(value))  # jax.random takes no whole probability

  @classmethod
  def migrated(cls, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a stored config, as plain JSON values, in their present form. Fields that were renamed, moved or
    removed are recognised here."""
    return fields

  def is_same(self, name: str, old: Any, new: Any) -> bool:
    """Whether two values of a field mean the same."""
    return old == new

  def _at_least(self, least: float, *names: str) -> None:
    for name in names:
      value = getattr(self, name)
      expect(value >= least, f'{type(self).__name__}.{name}: expected at least {least}, found {value}')

  def _at_most(self, most: float, *names: str) -> None:
    for name in names:
      value = getattr(self, name)
      expect(value <= most, f'{type(self).__name__}.{name}: expected at most {most}, found {value}')

  def _between(self, least: float, most: float, *names: str) -> None:
    self._at_least(least, *names)
    self._at_most(most, *names)

  def _sizes(self, *names: str) -> None:
    """Of fields that are a dimension of a parameter."""
    self._between(1, _LARGEST_SIZE, *names)

  def _dropout(self, name: str) -> None:
    """Of a field by which what is kept is divided, less 1."""
    value = getattr(self, name)
    self._probability(name)
    expect(value < 1, f'{type(self).__name__}.{name}: expected less than 1, found {value}')

  def _seed(self, name: str) -> None:
    value = getattr(self, name)
    self._at_least(0, name)
    expect(value < 2**32, f'{type(self).__name__}.{name}: expected less than 2**32, found {value}')

  def _probability(self, *names: str) -> None:
    for name in names:
      value = getattr(self, name)
      expect(0 <= value <= 1, f'{type(self).__name__}.{name}: expected a number from 0 to 1, found {value}')


@dataclasses.dataclass(frozen=True)
class Family(Checked):
  """Configs of which one can stand for another. A class that derives from this one is a family, and has what others may
  ask of all of its members; these derive from the family, here or in a module of the user's.

  Attributes:
    made_by: what makes that which the config is of: the class, or the function, itself, or where it can be imported
      from, `package.module:Name`. Its arguments are those of the family (see `layers.make`).
  """

  made_by: ClassVar[str | Callable | None] = None

  def __post_init__(self):
    is_family = Family in type(self).__bases__
    expect(not is_family, f'config: expected one of the kinds of {type(self).__name__}, found {type(self).__name__}')
    super().__post_init__()


def maker(config: Family) -> Callable[..., Any]:
  """What makes that which a config is of.

  Raises:
    UserError: if the config does not name it, or the name leads nowhere.
  """
  kind, named = type(config).__name__, type(config).made_by
  if named is None:
    raise UserError(f'{kind} does not say what it makes; set {kind}.made_by to a class or to its name, module:Class')
  if not isinstance(named, str):
    return named
  module, _, name = named.partition(':')
  try:
    return getattr(importlib.import_module(module), name)
  except (ImportError, AttributeError, ValueError) as error:
    raise UserError(f'{kind}.made_by: expected module:Class that can be imported, found {named!r} ({error})') from error


def shown(number: float) -> str:
  """A number as a sentence names it: a whole one of thousands of digits cannot be printed."""
  if isinstance(number, int) and abs(number) >= 10**40:
    return f'a number of about {round(number.bit_length() * math.log10(2))} digits'
  return str(number)


def _int_range(number: float, is_wide: bool) -> str | None:
  """What is expected in the place of a whole number that is too large; None where it is not."""
  least, most = (-(2**63), 2**63 - 1) if is_wide else (_LEAST_INT, _MOST_INT)
  if number > most:
    return f'at most {most}'
  return f'at least {least}' if number < least else None


def _float_range(number: float, is_wide: bool) -> str | None:
  """The same of any other number."""
  infinite = abs(number) > sys.float_info.max and not (is_wide and isinstance(number, float))
  if number != number or infinite:  # the first of nan alone
    return 'a finite number'
  if is_wide or number == 0 or _LEAST_FLOAT <= abs(number) <= _MOST_FLOAT:
    return None
  return '0, or a number from 1.2e-38 to 3.4e+38 (what 32 bits hold)'


def to_dict(config: Checked) -> dict[str, Any]:
  """The config as plain JSON values; `kind` names each dataclass, one from outside of this package with its module."""

  def encode(value):
    if isinstance(value, Checked):
      return to_dict(value)
    return list(value) if isinstance(value, tuple) else value

  return {'kind': _kind_name(type(config))} | {
    f.name: encode(getattr(config, f.name)) for f in dataclasses.fields(config)
  }


def _is_ours(kind: type) -> bool:
  return kind.__module__.partition('.')[0] == __name__.partition('.')[0]


def _kind_name(kind: type) -> str:
  """The name under which a config is stored: `SparseFFConfig`, or `mine:WindowConfig` of a user's module `mine`."""
  return kind.__name__ if _is_ours(kind) else f'{kind.__module__}:{kind.__qualname__}'


def outside_modules(config: Checked) -> list[str]:
  """The modules of the user's that define kinds in a config: another process that is to read it imports them first."""
  own = [] if _is_ours(type(config)) else [type(config).__module__]
  within = [getattr(config, field.name) for field in dataclasses.fields(config)]
  found = [module for value in within if isinstance(value, Checked) for module in outside_modules(value)]
  return list(dict.fromkeys(own + found))


def _kinds(base: type) -> dict[str, type]:
  """Every config by the name under which it is stored."""
  kinds = {}
  for kind in base.__subclasses__():
    # The class itself, and not gin's subclass of the same name, whose defaults are what gin has bound.
    kinds |= _kinds(kind) | {_kind_name(kind): kind}
  return kinds


def _kind(name: Any) -> type:
  """The config of this name."""
  kind = _kinds(Checked).get(renames.RENAMED_KINDS.get(name, name)) if isinstance(name, str) else None
  module = name.partition(':')[0] if isinstance(name, str) and ':' in name else None
  expect(
    kind is not None or module is None or module in sys.modules,
    f'config: {name!r:.80} is defined outside of this package; import its module with --module {module!s:.80}',
  )
  # Gin derives classes from any that it is shown, and a base without fields is no kind of config.
  if kind is None or not dataclasses.is_dataclass(kind):
    raise UserError(f'config: expected a kind of this version, found {name!r:.80}')
  return kind


def from_dict(values: dict[str, Any]) -> Any:
  """The config that `to_dict` wrote, in this version or an earlier one.

  A field that is missing has its default, which is why the default of a new field means what was before it. Fields that
  have been renamed, moved or removed are migrated (`Checked.migrated`).

  Raises:
    UserError: if a kind or a field is not known, a field without a default is missing, or a value is not valid.
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
  kind = _kind(fields.pop('kind', None))
  fields = kind.migrated(renames.renamed_fields(kind.__name__, fields))
  known = {f.name: f for f in dataclasses.fields(kind)}
  for name in fields:
    expect(name in known, f'{kind.__name__}: expected fields {sorted(known)}, found {name!r}')
  for name, field in known.items():
    has_default = (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
    expect(name in fields or has_default, f'{kind.__name__}: expected the field {name!r}, found none')
  return kind(**{name: _built(v, levels - 1) if isinstance(v, dict) else v for name, v in fields.items()})


def differences(stored: Checked, given: Checked, prefix: str = '') -> list[str]:
  """One `path: stored -> given` for every field in which two configs of one kind differ."""
  found = []
  for field in dataclasses.fields(stored):
    path, old, new = f'{prefix}{field.name}', getattr(stored, field.name), getattr(given, field.name)
    if isinstance(old, Checked) and type(old) is type(new):
      found += differences(old, new, f'{path}.')
    elif not stored.is_same(field.name, old, new):
      found.append(f'{path}: {old!r} -> {new!r}')
  return found
