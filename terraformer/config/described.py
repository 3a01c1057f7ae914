"""Describes in words what a field of a config takes."""

import dataclasses
import re
import types
import typing
from typing import Any

from terraformer.config.words import any_of

_SINGLE = {int: 'a whole number', float: 'a number', str: 'a quoted text', bool: 'True or False', type(None): 'None'}
_SEVERAL = {
  int: 'a list of whole numbers, such as [1, 2]',
  float: 'a list of numbers, such as [0.5, 2]',
  str: "a list of quoted texts, such as ['a', 'b']",
}


def described(annotation: Any) -> str:
  """Returns what an annotation admits, in words; a family is the list of its members."""
  origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
  if origin in (typing.Union, types.UnionType):
    return any_of(dict.fromkeys(map(described, arguments)))
  if annotation in _SINGLE:
    return _SINGLE[annotation]
  if origin is tuple and arguments[1:] == (...,) and arguments[0] in _SEVERAL:
    return _SEVERAL[arguments[0]]
  if origin is typing.Literal:
    return any_of(map(repr, arguments))
  if names := members(annotation):
    first = names[0] if '.' in names[0] else f'config.{names[0]}'
    return f'{any_of(names)} (in gin, @{first}())'
  name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
  return re.sub(r'terraformer\.config\.\w+\.', '', name)


def members(annotation: Any) -> list[str]:
  """Returns the names of the configs of a family, `module.Name` for a user's; nothing if the type is not a family."""
  if not isinstance(annotation, type) or not dataclasses.is_dataclass(annotation):
    return []
  ours = __name__.partition('.')[0]
  found = {}
  for kind in (annotation, *_below(annotation)):
    if getattr(kind, 'made_by', None) is not None:
      is_ours = kind.__module__.partition('.')[0] == ours
      found[kind.__name__ if is_ours else f'{kind.__module__}.{kind.__name__}'] = None
  return list(found)


def _below(kind: type) -> list[type]:
  return [each for child in kind.__subclasses__() for each in (child, *_below(child))]
