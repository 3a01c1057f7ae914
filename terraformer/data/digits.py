"""The paper's algorithmic tasks: numbers to copy and to add, every example a function of its index."""

import decimal

import numpy as np

from terraformer.config import DigitsConfig
from terraformer.data.store import SPLITS


def count(config: DigitsConfig, split: str) -> int:
  """Examples of a split."""
  return config.train_examples if split == 'train' else config.held_out_examples


def example(task: str, config: DigitsConfig, split: str, index: int) -> dict[str, str]:
  """An example of `decimal_copy` (`427` to `427`) or `long_addition` (`58+427` to `485`).

  Training and validation have numbers of `config.train_digits` digits, test those of `config.test_digits`; both numbers
  of a sum are drawn alike. The split and the index seed the draws, so that no split repeats another.
  """
  rng = np.random.default_rng((config.seed, SPLITS.index(split), index))
  least, most = config.test_digits if split == 'test' else config.train_digits
  if task == 'decimal_copy':
    number = _number(rng, least, most)
    return {'inputs': number, 'targets': number}
  one, other = (_number(rng, least, most) for _ in range(2))
  return {'inputs': f'{one}+{other}', 'targets': _sum(one, other, most)}


def _number(rng: np.random.Generator, least: int, most: int) -> str:
  """A number without leading zeros whose length is drawn evenly."""
  digits = rng.integers(0, 10, rng.integers(least, most + 1))
  digits[0] = rng.integers(1, 10)
  return ''.join(map(str, digits.tolist()))


def _sum(one: str, other: str, most: int) -> str:
  """Of numbers of at most `most` digits; Python reads and writes its own integers only up to some thousands of them."""
  context = decimal.Context(prec=most + 1)
  return str(context.add(decimal.Decimal(one), decimal.Decimal(other)))
