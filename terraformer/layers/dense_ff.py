"""The dense feed-forward block.

B batch, T time, D d_model.
"""

import jax
from flax import nnx

from terraformer.config import DenseFFConfig
from terraformer.layers.dense import Dense
from terraformer.ops.dropout import dropout


class DenseFF(nnx.Module):
  """Computes y = relu(x w1 + b1) w2 + b2."""

  def __init__(self, config: DenseFFConfig, d_model: int, rate: float, *, key: jax.Array):
    """`rate` is the dropout rate of the output; all tokens of an example share one mask."""
    in_key, out_key = jax.random.split(key)
    self.expand = Dense(d_model, config.d_ff, key=in_key, axes=('embed', 'ff'))
    self.contract = Dense(config.d_ff, d_model, key=out_key, axes=('ff', 'embed'))
    self.rate = rate

  def __call__(self, x_BxTxD: jax.Array, *, key: jax.Array | None = None, routing=None) -> tuple[jax.Array, None]:
    """Computes all positions. Returns None for the routing, since there are no discrete choices."""
    y_BxTxD = self.contract(jax.nn.relu(self.expand(x_BxTxD)))
    return dropout(y_BxTxD, self.rate, key=key, shared_axes=(1,)), None

  def step(self, x_BxD: jax.Array) -> jax.Array:
    """Computes one position."""
    return self.contract(jax.nn.relu(self.expand(x_BxD)))
