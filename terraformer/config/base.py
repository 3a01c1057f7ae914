"""The base classes of all configs, which check fields when a config is built and convert configs to JSON and back."""

import builtins
import dataclasses
import functools
import importlib
import math
import os
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, ClassVar

from terraformer.config import renames
from terraformer.config.described import described

# The range of int32, in which arrays hold numbers and JAX counts steps, positions and array indices.
_LEAST_INT, _MOST_INT = -(2**31), 2**31 - 1
# The range of normal float32 numbers. The compiler flushes smaller ones to 0, and a division by them fails.
_LEAST_FLOAT, _MOST_FLOAT = 2.0**-126, 2.0**128 - 2.0**104
# Largest dimension of a parameter. No machine holds more, and products of several must fit in 64 bits.
_LARGEST_SIZE = 2**22
_LONGEST_MESSAGE = 1000  # characters
_DEEPEST = 16  # levels of configs within configs


class UserError(ValueError):
  """Bad input. The message is one sentence that says what is wrong and what to do.

  For any input, the message is one printable line of limited length.
  """

  def __init__(self, message: str):
    super().__init__(_one_line(message))


def _one_line(message: str) -> str:
  """Returns the message as one printable line; dots replace the middle of a long message."""
  text = message.split('\n  ')[0]  # gin adds indented lines that say where it was
  half = _LONGEST_MESSAGE // 2
  text = text if len(text) <= _LONGEST_MESSAGE else f'{text[:half]} ... {text[-half:]}'
  return printable(text)


def printable(text: str) -> str:
  """Returns the text as one line of valid UTF-8; escapes replace line breaks and characters that cannot be printed."""
  return ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)


def refused(path: str | os.PathLike, action: str, error: OSError) -> UserError:
  """Returns the error for an action, such as `write`, that the system refuses for a path."""
  return UserError(f'cannot {action} {path}: {(error.strerror or str(error)).lower()}')


def unreadable(path: str | os.PathLike, error: OSError) -> UserError:
  """Returns the error for a path that the system cannot read."""
  return refused(path, 'read', error)


def first_line(error: object) -> str:
  """Returns the first line of an error's message, or of a text; the name of the error's type if that is empty."""
  return (str(error).strip() or type(error).__name__).splitlines()[0]


def expect(condition: bool, message: str) -> None:
  if not condition:
    raise UserError(message)


def divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
  """Raises UserError unless `value` is a multiple of `divisor`."""
  expect(value % divisor == 0, f'{name}: expected a multiple of {divisor_name} ({divisor}), found {value}')


def _options(annotation: Any) -> tuple[Any, ...]:
  """Returns the members of a union; another annotation is its only option."""
  is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
  return typing.get_args(annotation) if is_union else (annotation,)


def _admits(annotation: Any, value: Any) -> bool:
  """Returns whether `value` has the annotated type. A float field admits an int; neither admits a bool."""
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
  """Returns whether an annotation, or a part of it, is text, as with `from __future__ import annotations`."""
  if typing.get_origin(annotation) is typing.Literal:
    return False
  return isinstance(annotation, (str, typing.ForwardRef)) or any(map(_is_text, typing.get_args(annotation)))


@functools.cache
def field_types(kind: type) -> dict[str, Any]:
  """Returns the types of a config's fields, by name.

  Raises:
    UserError: if an annotation has a name that its module does not define when the first config is built.
  """
  return {field.name: _field_type(kind, field) for field in dataclasses.fields(kind)}


def _field_type(kind: type, field: dataclasses.Field) -> Any:
  if not _is_text(field.type):  # almost always true; evaluating text takes longer than building a config
    return field.type
  owner = [base for base in kind.__mro__ if vars(base).get('__dataclass_fields__', {}).get(field.name) is field][-1]
  # The class has the lowest precedence, since a field may have the name of a type (`bytes: bytes = b''`).
  names = {**vars(owner), **vars(builtins), **vars(sys.modules.get(owner.__module__, builtins))}
  holder = type('holder', (), {'__annotations__': {field.name: field.type}})
  try:
    return typing.get_type_hints(holder, {}, names)[field.name]
  except (NameError, AttributeError, SyntaxError, TypeError) as error:
    raise UserError(
      f'{kind.__name__}.{field.name}: the annotation {field.type!r} cannot be evaluated at run time ({error}); '
      f'import the names that it needs in {owner.__module__}, not only under TYPE_CHECKING'
    ) from error


class Checked:
  """A config that checks its fields against their annotations, and then calls its own `check`.

  Numbers must fit in 32 bits: integers in int32; floats in float32, finite, and 0 or normal. `_wide` names fields that
  admit more: 64-bit integers, and any float but nan.
  """

  _wide: ClassVar[tuple[str, ...]] = ()
  __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]  # every kind of config is a dataclass

  def __post_init__(self):
    for name, annotation in field_types(type(self)).items():
      value = getattr(self, name)
      if isinstance(value, list) and tuple in [typing.get_origin(option) or option for option in _options(annotation)]:
        value = tuple(value)
        object.__setattr__(self, name, value)
      if not _admits(annotation, value):
        raise UserError(f'{type(self).__name__}.{name}: expected {described(annotation)}, found {value!r}')
    self._check_numbers()
    self.check()

  def check(self) -> None:
    """Raises UserError if a field is invalid, or if fields contradict each other."""

  def _check_numbers(self) -> None:
    for name, annotation in field_types(type(self)).items():
      value = getattr(self, name)
      is_float = float in (*_options(annotation), *typing.get_args(annotation))
      for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, (int, float)) and not isinstance(number, bool):
          expected = _float_range if is_float else _int_range
          wrong = expected(number, name in self._wide)
          expect(wrong is None, f'{type(self).__name__}.{name}: expected {wrong}, found {shown(number)}')
      if is_float and type(value) is int and int not in _options(annotation):
        object.__setattr__(self, name, float(value))  # jax.random does not accept an int as a probability

  @classmethod
  def migrated(cls, fields: dict[str, Any]) -> dict[str, Any]:
    """Converts the fields of a stored config, plain JSON values, to their present form. Override it to handle fields
    that were renamed, moved or removed."""
    return fields

  def is_same(self, name: str, old: Any, new: Any) -> bool:
    """Returns whether two values of a field mean the same."""
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
    """Checks fields that are a dimension of a parameter."""
    self._between(1, _LARGEST_SIZE, *names)

  def _dropout(self, name: str) -> None:
    """Checks a dropout rate; it must be below 1, because kept values are divided by 1 minus the rate."""
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
  """Configs that can replace each other. A class that derives directly from this one is a family, and defines what all
  its members answer; members derive from the family, here or in a user's module.

  Attributes:
    made_by: the class or function that makes what the config describes, or its name `package.module:Name`. All makers
      of a family take the same arguments (see `layers.make`).
  """

  made_by: ClassVar[str | Callable | None] = None

  def __post_init__(self):
    is_family = Family in type(self).__bases__
    expect(not is_family, f'config: expected one of the kinds of {type(self).__name__}, found {type(self).__name__}')
    super().__post_init__()


def maker(config: Family) -> Callable[..., Any]:
  """Returns the class or function that makes what a config describes.

  Raises:
    UserError: if the config does not name it, or it cannot be imported.
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
    raise UserError(f'{kind}.made_by: cannot import {named!r} ({error}); name it as module:Class') from error


def shown(number: float) -> str:
  """Returns a number as text for a message; Python cannot print an integer of thousands of digits."""
  if isinstance(number, int) and abs(number) >= 10**40:
    return f'a number of about {round(number.bit_length() * math.log10(2))} digits'
  return str(number)


def _int_range(number: float, is_wide: bool) -> str | None:
  """Returns what is expected instead of an integer that is out of range; None if it is in range."""
  least, most = (-(2**63), 2**63 - 1) if is_wide else (_LEAST_INT, _MOST_INT)
  if number > most:
    return f'at most {most}'
  return f'at least {least}' if number < least else None


def _float_range(number: float, is_wide: bool) -> str | None:
  """Returns what is expected instead of a float that is out of range; None if it is in range."""
  infinite = abs(number) > sys.float_info.max and not (is_wide and isinstance(number, float))
  if number != number or infinite:  # only nan differs from itself
    return 'a finite number'
  if is_wide or number == 0 or _LEAST_FLOAT <= abs(number) <= _MOST_FLOAT:
    return None
  return '0, or a number from 1.2e-38 to 3.4e+38 (the range of float32)'


def to_dict(config: Checked) -> dict[str, Any]:
  """Returns the config as plain JSON values; `kind` names each dataclass, with its module if it is a user's."""

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
  """Returns the name for storing a config: `SparseFFConfig`, or `mine:WindowConfig` for a user's module `mine`."""
  return kind.__name__ if _is_ours(kind) else f'{kind.__module__}:{kind.__qualname__}'


def outside_modules(config: Checked) -> list[str]:
  """Returns the user's modules that define kinds of a config; another process must import them before it reads it."""
  own = [] if _is_ours(type(config)) else [type(config).__module__]
  within = [getattr(config, field.name) for field in dataclasses.fields(config)]
  found = [module for value in within if isinstance(value, Checked) for module in outside_modules(value)]
  return list(dict.fromkeys(own + found))


def _kinds(base: type) -> dict[str, type]:
  """Returns all kinds of config by their stored names."""
  kinds = {}
  for kind in base.__subclasses__():
    # The class itself replaces gin's subclass of the same name, whose defaults are gin's bindings.
    kinds |= _kinds(kind) | {_kind_name(kind): kind}
  return kinds


def _kind(name: Any) -> type:
  """Returns the kind of config with this name."""
  kind = _kinds(Checked).get(renames.RENAMED_KINDS.get(name, name)) if isinstance(name, str) else None
  module = name.partition(':')[0] if isinstance(name, str) and ':' in name else None
  expect(
    kind is not None or module is None or module in sys.modules,
    f'config: {name!r:.80} is defined outside this package; add --module={module!s:.80}',
  )
  # Gin derives classes from all that it configures, and a base without fields is not a kind of config.
  if kind is None or not dataclasses.is_dataclass(kind):
    raise UserError(
      f'config: this version has no kind of config named {name!r:.80}; if a newer one wrote it, update terraformer'
    )
  return kind


def from_dict(values: dict[str, Any]) -> Any:
  """Returns the config that `to_dict` wrote, in this version or an earlier one.

  A missing field gets its default, so the default of a new field must mean the behavior before it existed. Fields that
  were renamed, moved or removed are migrated (`Checked.migrated`).

  Raises:
    UserError: if a kind or a field is unknown, a field without a default is missing, or a value is invalid.
  """
  expect(isinstance(values, dict), f'config: expected an object, found {values!r:.80}')
  try:
    return _built(values, _DEEPEST)
  except UserError as error:
    raise UserError(str(error)) from error  # removes the lines that gin has added


def _built(values: dict[str, Any], levels: int) -> Any:
  """Returns the config of an object with at most `levels` levels of nesting."""
  expect(levels > 0, f'config: configs are nested more than {_DEEPEST} levels deep')
  fields = dict(values)
  kind = _kind(fields.pop('kind', None))
  fields = kind.migrated(renames.renamed_fields(kind.__name__, fields))
  known = {f.name: f for f in dataclasses.fields(kind)}
  for name in fields:
    expect(name in known, f'{kind.__name__} has no field {name!r}; its fields are {", ".join(sorted(known))}')
  for name, field in known.items():
    has_default = (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
    expect(name in fields or has_default, f'{kind.__name__}: the field {name!r} is missing')
  return kind(**{name: _built(v, levels - 1) if isinstance(v, dict) else v for name, v in fields.items()})


def differences(stored: Checked, given: Checked, prefix: str = '') -> list[tuple[str, str, str]]:
  """Returns the path, the stored value and the given value of every field in which two configs of one kind differ.

  Values are text; of a config, the name of its class.
  """
  found = []
  for field in dataclasses.fields(stored):
    path, old, new = f'{prefix}{field.name}', getattr(stored, field.name), getattr(given, field.name)
    if isinstance(old, Checked) and type(old) is type(new):
      found += differences(old, new, f'{path}.')
    elif not stored.is_same(field.name, old, new):
      found.append(
        (path, *(type(value).__name__ if isinstance(value, Checked) else repr(value) for value in (old, new)))
      )
  return found
