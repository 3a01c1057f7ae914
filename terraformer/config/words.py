"""Words of messages: flags to paste, lists of names, and names that a misspelt one resembles."""

import difflib
import shlex
from collections.abc import Iterable, Sequence


def flag(field: str, value: str) -> str:
  """Returns the flag that sets a field, as a shell takes it.

  Args:
    field: class and field, such as `TrainConfig.steps`.
    value: the value as gin text.
  """
  binding = f'config.{field} = {value}'
  if set(binding) & set('"$`\\!'):
    return f'--gin_bindings={shlex.quote(binding)}'
  return f'--gin_bindings="{binding}"' if "'" in binding else f"--gin_bindings='{binding}'"


def newer(path: object, what: str, known: int, found: object) -> str:
  """Returns the message about a file of a format that this version does not know yet."""
  return f'{path}: expected at most {what} {known}, found {found}, which a newer version wrote; update terraformer'


def any_of(names: Iterable[object], last: str = 'or') -> str:
  """Returns `a, b or c`."""
  *others, end = map(str, names)
  return f'{", ".join(others)} {last} {end}' if others else end


def resembling(name: str, known: Iterable[str]) -> list[str]:
  """Returns up to three of the known names that a misspelt name may mean, the likeliest first; case is ignored."""
  by_lower = {each.lower(): each for each in known}
  for cutoff in (0.85, 0.65):  # a slip of the finger, then another word
    if found := difflib.get_close_matches(name.lower(), list(by_lower), cutoff=cutoff):
      return [by_lower[each] for each in found]
  return []


def meant(name: str, known: Sequence[str], otherwise: str, prefix: str = '') -> str:
  """Returns `did you mean A or B?`, or `otherwise` and all known names if none resembles `name`."""
  found = resembling(name, known)
  listed = [f'{prefix}{each}' for each in found or known]
  return f'did you mean {any_of(listed)}?' if found else f'{otherwise} {", ".join(listed)}'
