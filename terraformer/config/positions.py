"""Configurations of position encodings."""

import dataclasses
import math
from typing import ClassVar

from terraformer.config.base import Family, divides, expect

# Two to this power exceeds the number of positions that any sequence can have.
_MOST_DIGITS = 128


@dataclasses.dataclass(frozen=True)
class PositionsConfig(Family):
  """The encoding of positions."""

  def n_positions(self, max_length: int) -> int:
    """Returns the number of positions that the encoding has, for a model with this `max_length`."""
    return max_length

  def check_model(self, name: str, d_model: int) -> None:
    """Raises UserError if the encoding does not fit the model of this name."""


@dataclasses.dataclass(frozen=True)
class _OffsetPositionsConfig(PositionsConfig):
  """Positions with a random offset for some training examples.

  Attributes:
    max_offset: maximum offset that is added to the positions of an example in training.
    start_from_zero: share of training examples without an offset.
  """

  max_offset: int = 0
  start_from_zero: float = 1.0

  def check(self):
    self._at_least(0, 'max_offset')
    self._probability('start_from_zero')


@dataclasses.dataclass(frozen=True)
class TablePositionsConfig(_OffsetPositionsConfig):
  """A trainable vector for each position, initialized with sinusoids."""

  made_by: ClassVar = 'terraformer.layers.positions:PositionTable'


@dataclasses.dataclass(frozen=True)
class SinusoidPositionsConfig(_OffsetPositionsConfig):
  """Computed sinusoids, neither stored nor trained (Vaswani et al., 2017)."""

  made_by: ClassVar = 'terraformer.layers.positions:SinusoidPositions'


@dataclasses.dataclass(frozen=True)
class FixedBasePositionsConfig(PositionsConfig):
  """The digits of a position in several bases, each multiplied by a trainable vector (the authors' `fixed-base`).

  Attributes:
    bases: bases of the number systems; their vectors are added.
    n_digits: number of digits in each base, least significant first; must divide d_model.
    start_from_zero: share of training examples that start at position 0 instead of a random one.
    drop: share of training examples without positions.
  """

  made_by: ClassVar = 'terraformer.layers.positions:FixedBasePositions'

  bases: tuple[int, ...] = (11, 13, 14, 15)
  n_digits: int = 8
  start_from_zero: float = 0.01
  drop: float = 0.01

  def check(self):
    self._between(1, _MOST_DIGITS, 'n_digits')
    self._probability('start_from_zero', 'drop')
    expect(
      min(self.bases, default=0) >= 2,
      f'FixedBasePositionsConfig.bases: expected bases of at least 2, found {self.bases}',
    )

  def n_positions(self, max_length: int) -> int:
    """Returns the number of positions that the smallest base can write, limited to the range of int32."""
    return min(min(self.bases) ** self.n_digits, 2**31 - 1)

  def check_model(self, name: str, d_model: int) -> None:
    """Raises UserError unless the vectors of all digits have the same width."""
    divides(f'{name}.d_model', d_model, 'FixedBasePositionsConfig.n_digits', self.n_digits)


@dataclasses.dataclass(frozen=True)
class AxialPositionsConfig(PositionsConfig):
  """Position t as coordinates in a grid, each with a trainable vector for a part of d_model (Reformer).

  Attributes:
    shape: shape of the grid, slowest coordinate first; the product is the number of positions.
    widths: widths of the coordinates' vectors; their sum is d_model.
  """

  made_by: ClassVar = 'terraformer.layers.positions:AxialPositions'

  shape: tuple[int, ...] = (32, 32)
  widths: tuple[int, ...] = (128, 128)

  def check(self):
    expect(
      len(self.shape) == len(self.widths) > 0,
      f'AxialPositionsConfig.widths: expected one for each of {self.shape}, found {self.widths}',
    )
    expect(
      min(self.shape + self.widths) >= 1,
      f'AxialPositionsConfig: expected numbers of at least 1, found shape {self.shape} and widths {self.widths}',
    )

  def n_positions(self, max_length: int) -> int:
    """Returns the number of points in the grid."""
    return math.prod(self.shape)

  def check_model(self, name: str, d_model: int) -> None:
    """Raises UserError unless the widths add up to d_model."""
    expect(
      sum(self.widths) == d_model,
      f'AxialPositionsConfig.widths: expected a sum of d_model ({d_model}), found {self.widths}',
    )
