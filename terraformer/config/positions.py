"""Where a token stands."""

import dataclasses
import math
from typing import ClassVar

from terraformer.config.base import Family, divides, expect

# Two to the power of this is more positions than there can be; a digit more is a power more.
_MOST_DIGITS = 128


@dataclasses.dataclass(frozen=True)
class PositionsConfig(Family):
  """How a token knows where it stands."""

  def n_positions(self, max_length: int) -> int:
    """Positions that there are, where the model has `max_length`."""
    return max_length

  def check_model(self, name: str, d_model: int) -> None:
    """Raises UserError where it does not fit the model of this name."""


@dataclasses.dataclass(frozen=True)
class _OffsetPositionsConfig(PositionsConfig):
  """Positions of which some training examples start later than at 0.

  Attributes:
    max_offset: largest number that is added to the positions of an example in training.
    start_from_zero: share of the training examples to which none is added.
  """

  max_offset: int = 0
  start_from_zero: float = 1.0

  def check(self):
    self._at_least(0, 'max_offset')
    self._probability('start_from_zero')


@dataclasses.dataclass(frozen=True)
class TablePositionsConfig(_OffsetPositionsConfig):
  """A trainable vector a position, sinusoids at first."""

  made_by: ClassVar = 'terraformer.layers.positions:PositionTable'


@dataclasses.dataclass(frozen=True)
class SinusoidPositionsConfig(_OffsetPositionsConfig):
  """Sinusoids that are computed, not stored or trained (Vaswani et al., 2017)."""

  made_by: ClassVar = 'terraformer.layers.positions:SinusoidPositions'


@dataclasses.dataclass(frozen=True)
class FixedBasePositionsConfig(PositionsConfig):
  """A position's digits in several bases, each times a trainable vector (the authors' `fixed-base`).

  Attributes:
    bases: of the number systems; their vectors are added.
    n_digits: of each, least significant first; must divide d_model.
    start_from_zero: share of the training examples that start at position 0 and not at a random one.
    drop: share of the training examples that see no positions.
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
      f'FixedBasePositionsConfig.bases: expected bases from 2, found {self.bases}',
    )

  def n_positions(self, max_length: int) -> int:
    """Positions that the smallest base can write, at most those of a 32-bit integer."""
    return min(min(self.bases) ** self.n_digits, 2**31 - 1)

  def check_model(self, name: str, d_model: int) -> None:
    """The digits' vectors must be of one width."""
    divides(f'{name}.d_model', d_model, 'FixedBasePositionsConfig.n_digits', self.n_digits)


@dataclasses.dataclass(frozen=True)
class AxialPositionsConfig(PositionsConfig):
  """Position t as coordinates of a grid, each with a trainable vector for a part of d_model (Reformer).

  Attributes:
    shape: of the grid, slowest coordinate first; the product is the number of positions.
    widths: of the coordinates' vectors; their sum is d_model.
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
      f'AxialPositionsConfig: expected numbers from 1, found shape {self.shape} and widths {self.widths}',
    )

  def n_positions(self, max_length: int) -> int:
    """Points of the grid."""
    return math.prod(self.shape)

  def check_model(self, name: str, d_model: int) -> None:
    """The coordinates' vectors make one of d_model."""
    expect(
      sum(self.widths) == d_model,
      f'AxialPositionsConfig.widths: expected a sum of d_model ({d_model}), found {self.widths}',
    )
