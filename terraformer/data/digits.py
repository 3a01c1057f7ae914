"""The paper's algorithmic tasks: copying and adding numbers; each example is a function of its index."""

import decimal
from collections.abc import Iterator

import numpy as np

from terraformer.data.scoring import Scoring
from terraformer.data.source import Example, Source
from terraformer.data.store import SPLITS


class _Digits(Source):
  """Numbers have `config.train_digits` digits in training and validation, and `config.test_digits` in test.

  The only score is exact match, without a baseline: the source is either the number itself or not a number.
  """

  scoring = Scoring(rouge=False, lead=False)

  def example(self, split: str, index: int) -> Example:
    """Returns an example. The split and the index are the seed, so no split repeats another."""
    rng = np.random.default_rng((self.config.seed, SPLITS.index(split), index))
    return self._drawn(rng, *(self.config.test_digits if split == 'test' else self.config.train_digits))

  def _drawn(self, rng: np.random.Generator, least: int, most: int) -> Example:
    raise NotImplementedError(f'{type(self).__name__}._drawn')

  def read(self, split: str, part: int, parts: int) -> Iterator[Example]:
    return (self.example(split, index) for index in range(part, self.count(split), parts))

  def count(self, split: str) -> int:
    return self.config.train_examples if split == 'train' else self.config.held_out_examples

  def held_out(self, show_progress: bool) -> tuple[Example, ...]:
    return ()  # short numbers occur in all splits


class DecimalCopy(_Digits):
  """`427` to `427`."""

  def _drawn(self, rng: np.random.Generator, least: int, most: int) -> Example:
    number = _number(rng, least, most)
    return {'inputs': number, 'targets': number}


class LongAddition(_Digits):
  """`58+427` to `485`; both numbers have the same distribution."""

  def _drawn(self, rng: np.random.Generator, least: int, most: int) -> Example:
    numbers = [_number(rng, least, most) for _ in range(2)]
    written = [*numbers, _sum(*numbers, most)]
    if self.config.least_first:
      written = [number[::-1] for number in written]
    return {'inputs': '+'.join(written[:2]), 'targets': written[2]}


def _number(rng: np.random.Generator, least: int, most: int) -> str:
  """Returns a number without leading zeros, of uniformly random length."""
  digits = rng.integers(0, 10, rng.integers(least, most + 1))
  digits[0] = rng.integers(1, 10)
  return ''.join(map(str, digits.tolist()))


def _sum(one: str, other: str, most: int) -> str:
  """Returns the sum of numbers of at most `most` digits; Python converts integers only up to a few thousand digits."""
  context = decimal.Context(prec=most + 1)
  return str(context.add(decimal.Decimal(one), decimal.Decimal(other)))
