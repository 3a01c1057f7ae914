"""Tokens and positions as vectors.

B batch, T time, D d_model, V vocabulary, P positions.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.layers.parameter import parameter
from terraformer.ops.positions import sinusoid_table


class Embedding(nnx.Module):
  """One row a token, uniform in +-sqrt(3 / d_model) at first; rows are not scaled afterwards."""

  def __init__(self, vocab_size: int, d_model: int, *, key: jax.Array):
    bound = math.sqrt(3 / d_model)
    table_VxD = jax.random.uniform(key, (vocab_size, d_model), minval=-bound, maxval=bound)
    self.table_VxD = parameter(table_VxD, ('vocab', 'embed'))

  def __call__(self, tokens_x: jax.Array) -> jax.Array:
    """Tokens of any shape to vectors, ...xD."""
    return self.table_VxD[...][tokens_x]


class PositionTable(nnx.Module):
  """Trainable positions that start as sinusoids."""

  def __init__(self, max_length: int, d_model: int):
    self.table_PxD = parameter(jnp.asarray(sinusoid_table(max_length, d_model)), (None, 'embed'))

  def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
    """Adds the first T positions.

    Raises:
      ValueError: if T is larger than the table.
    """
    time, n_positions = x_BxTxD.shape[1], self.table_PxD[...].shape[0]
    if time > n_positions:
      raise ValueError(f'positions: expected at most {n_positions}, found a sequence of {time}')
    return x_BxTxD + self.table_PxD[...][:time]

  def step(self, x_BxD: jax.Array, position_B: jax.Array) -> jax.Array:
    """Adds one position to each example; positions beyond the table take its last one."""
    return x_BxD + self.table_PxD[...].at[position_B].get(mode='clip')
