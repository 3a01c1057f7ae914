"""Dense queries, keys and values, and the dense output that goes with them.

D d_model, H heads, K head width.
"""

import jax

from terraformer.config import DenseProjectionConfig
from terraformer.layers.dense import Dense
from terraformer.layers.projection import QKV, Projection, join_heads, split_heads


class DenseProjection(Projection):
  """Four dense layers, or three where keys are queries; a head is a contiguous slice of d_model."""

  def __init__(self, config: DenseProjectionConfig, d_model: int, n_heads: int, *, key: jax.Array):
    query_key, key_key, value_key, output_key = jax.random.split(key, 4)

    def make(key, axes):
      return Dense(d_model, d_model, key=key, bias=config.bias, axes=axes)

    self.query = make(query_key, ('embed', 'heads'))
    self.key = None if config.share_qk else make(key_key, ('embed', 'heads'))
    self.value = make(value_key, ('embed', 'heads'))
    self.output = make(output_key, ('heads', 'embed'))
    self.n_heads = n_heads

  def __call__(self, x_xD: jax.Array) -> QKV:
    """Queries, keys and values of all positions, ...xHxK each."""
    q_xHxK = split_heads(self.query(x_xD), self.n_heads)
    k_xHxK = q_xHxK if self.key is None else split_heads(self.key(x_xD), self.n_heads)
    return q_xHxK, k_xHxK, split_heads(self.value(x_xD), self.n_heads)

  def merge(self, y_xHxK: jax.Array) -> jax.Array:
    """The heads' results to ...xD."""
    return self.output(join_heads(y_xHxK))
