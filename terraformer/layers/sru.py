"""The simple recurrent unit (Lei et al., 2018), as in Terraformer (paper, section 4.3).

B batch, T time, W width.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import SRUConfig
from terraformer.layers.dense import Dense
from terraformer.ops.positions import last_positions
from terraformer.ops.recurrence import linear_recurrence
from terraformer.ops.segments import segment_starts

HIGHWAY_SCALE = math.sqrt(3)


class SRU(nnx.Module):
  """Computes c_t = f c_{t-1} + (1 - f) y and h_t = r c_t + (1 - r) x sqrt(3), with r, f and y from one dense layer.

  With `config.tanh`, h_t is computed from tanh(c_t); the state remains c_t.
  """

  def __init__(self, config: SRUConfig, *, key: jax.Array):
    self.gates = Dense(config.width, 3 * config.width, key=key, axes=(None, None))
    self.config = config

  def _gate(self, x_xW: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    reset_xW, forget_xW, update_xW = jnp.split(self.gates(x_xW), 3, axis=-1)
    return jax.nn.sigmoid(reset_xW), jax.nn.sigmoid(forget_xW), update_xW

  def _read(self, reset_xW: jax.Array, state_xW: jax.Array, x_xW: jax.Array) -> jax.Array:
    read_xW = jnp.tanh(state_xW) if self.config.tanh else state_xW
    return reset_xW * read_xW + (1 - reset_xW) * x_xW * HIGHWAY_SCALE

  def _states(self, x_BxTxW: jax.Array, start_BxT: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Returns the output and the state at all positions; where `start_BxT` is True, the previous state is 0."""
    reset_BxTxW, forget_BxTxW, update_BxTxW = self._gate(x_BxTxW)
    state_BxTxW = linear_recurrence(forget_BxTxW, update_BxTxW, self.init_cache(x_BxTxW.shape[0]), start_BxT)
    return self._read(reset_BxTxW, state_BxTxW, x_BxTxW), state_BxTxW

  def __call__(self, x_BxTxW: jax.Array, segment_BxT: jax.Array | None = None) -> jax.Array:
    """Computes all positions, left to right, each segment of packed rows by itself; same shape."""
    return self._states(x_BxTxW, None if segment_BxT is None else segment_starts(segment_BxT))[0]

  def prefill(self, x_BxTxW: jax.Array, length_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes all positions and the state after the first `length_B` of them, BxW."""
    y_BxTxW, state_BxTxW = self._states(x_BxTxW)
    return y_BxTxW, last_positions(state_BxTxW, length_B, 1)[:, 0]

  def init_cache(self, batch: int) -> jax.Array:
    """Returns the state before the first token, BxW."""
    return jnp.zeros((batch, self.config.width))

  def step(self, x_BxW: jax.Array, state_BxW: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the output at one position and the new state."""
    reset_BxW, forget_BxW, update_BxW = self._gate(x_BxW)
    state_BxW = forget_BxW * state_BxW + (1 - forget_BxW) * update_BxW
    return self._read(reset_BxW, state_BxW, x_BxW), state_BxW
