"""What the text of a flag means.

What is no value raises ArgumentTypeError: of anything else that is raised, argparse tells the name of the function.
"""

import argparse
from collections.abc import Callable

# JAX and its services take their numbers as int32.
_MOST_INT = 2**31 - 1


def refused(expected: str, text: str) -> argparse.ArgumentTypeError:
  """What is said of a text that is no value."""
  return argparse.ArgumentTypeError(f'expected {expected}, found {text if len(text) <= 40 else text[:40] + "..."!r}')


def whole(text: str) -> int:
  """A whole number."""
  try:
    return int(text)
  except ValueError:  # of thousands of digits, too
    raise refused('a whole number', text) from None


def number(text: str) -> float:
  """A number."""
  try:
    return float(text)
  except ValueError:
    raise refused('a number', text) from None


def whole_from(least: int, most: int | None = None) -> Callable[[str], int]:
  """Takes whole numbers from `least` on, at most `most`."""

  def parse(text: str) -> int:
    value = whole(text)
    if value < least:
      raise refused(f'at least {least}', text)
    if most is not None and value > most:
      raise refused(f'at most {most}', text)
    return value

  return parse


# Of what there may be less than is asked for, any number is sensible.
count, at_most = whole_from(0), whole_from(1)
positive, index = whole_from(1, _MOST_INT), whole_from(0, _MOST_INT)


def several(text: str, separator: str, form: str) -> tuple[int, int]:
  """Two whole numbers; `form` shows how they are written."""
  try:
    first, second = map(int, text.split(separator))
  except ValueError:
    raise refused(f'{form}, two whole numbers', text) from None
  return first, second
