"""Which positions a config asks for."""

import jax

from terraformer.config import (
  AxialPositionsConfig,
  FixedBasePositionsConfig,
  SinusoidPositionsConfig,
  TablePositionsConfig,
)
from terraformer.layers.parameter import tell
from terraformer.layers.position_axial import AxialPositions
from terraformer.layers.position_fixed_base import FixedBasePositions
from terraformer.layers.position_sinusoid import SinusoidPositions
from terraformer.layers.position_table import PositionTable

PositionsConfig = TablePositionsConfig | SinusoidPositionsConfig | FixedBasePositionsConfig | AxialPositionsConfig
Positions = PositionTable | SinusoidPositions | FixedBasePositions | AxialPositions

_POSITIONS = {
  TablePositionsConfig: PositionTable,
  SinusoidPositionsConfig: SinusoidPositions,
  FixedBasePositionsConfig: FixedBasePositions,
  AxialPositionsConfig: AxialPositions,
}


def make_positions(config: PositionsConfig, max_length: int, d_model: int, *, key: jax.Array) -> Positions:
  """The positions of one embedding of `max_length` tokens."""
  made = _POSITIONS[type(config)](config, max_length, d_model, key=key)
  tell(made, part='positions')
  return made
