"""Parses the values of flags.

Functions raise ArgumentTypeError for invalid text: for other errors, argparse would print the name of the function.
"""

import argparse
from collections.abc import Callable

# JAX and its services take their numbers as int32.
_MOST_INT = 2**31 - 1


def refused(expected: str, text: str) -> argparse.ArgumentTypeError:
  """Returns the error for invalid text."""
  return argparse.ArgumentTypeError(f'expected {expected}, found {text if len(text) <= 40 else text[:40] + "..."!r}')


def whole(text: str) -> int:
  """Returns the text as an int."""
  try:
    return int(text)
  except ValueError:  # also for thousands of digits
    raise refused('a whole number', text) from None


def number(text: str) -> float:
  """Returns the text as a float."""
  try:
    return float(text)
  except ValueError:
    raise refused('a number', text) from None


def whole_from(least: int, most: int | None = None) -> Callable[[str], int]:
  """Returns a parser of whole numbers from `least` to `most`."""

  def parse(text: str) -> int:
    value = whole(text)
    if value < least:
      raise refused(f'at least {least}', text)
    if most is not None and value > most:
      raise refused(f'at most {most}', text)
    return value

  return parse


# `count` and `at_most` are limits, which may be larger than any int32.
count, at_most = whole_from(0), whole_from(1)
positive, index = whole_from(1, _MOST_INT), whole_from(0, _MOST_INT)


def several(text: str, separator: str, form: str) -> tuple[int, int]:
  """Returns the two whole numbers of a text; `form` shows the format in messages."""
  try:
    first, second = map(int, text.split(separator))
  except ValueError:
    raise refused(f'{form}, two whole numbers', text) from None
  return first, second
