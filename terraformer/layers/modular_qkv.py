"""Queries, keys, values and attention's output by multiplicative modular layers.

D d_model, H heads, K head width.
"""

import jax

from terraformer.config import ModularProjectionConfig
from terraformer.layers.multiplicative_modular import MultiplicativeModularDense
from terraformer.layers.projection import QKV, Projection, join_heads, split_heads


class ModularProjection(Projection):
  """Four multiplicative modular layers, or three where keys are queries; a head is a contiguous slice of d_model."""

  def __init__(self, config: ModularProjectionConfig, d_model: int, n_heads: int, *, key: jax.Array):
    query_key, key_key, value_key, output_key = jax.random.split(key, 4)
    self.query = MultiplicativeModularDense(config.n_modules, d_model, key=query_key)
    self.key = None if config.share_qk else MultiplicativeModularDense(config.n_modules, d_model, key=key_key)
    self.value = MultiplicativeModularDense(config.n_modules, d_model, key=value_key)
    self.output = MultiplicativeModularDense(config.n_modules, d_model, key=output_key)
    self.n_heads = n_heads

  def __call__(self, x_xD: jax.Array) -> QKV:
    """Queries, keys and values of all positions, ...xHxK each."""
    q_xHxK = split_heads(self.query(x_xD), self.n_heads)
    k_xHxK = q_xHxK if self.key is None else split_heads(self.key(x_xD), self.n_heads)
    return q_xHxK, k_xHxK, split_heads(self.value(x_xD), self.n_heads)

  def merge(self, y_xHxK: jax.Array) -> jax.Array:
    """The heads' results to ...xD."""
    return self.output(join_heads(y_xHxK))
