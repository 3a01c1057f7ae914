"""Queries, keys, values and attention's output by multiplicative modular layers.

D d_model.
"""

import jax

from terraformer.config import ModularProjectionConfig
from terraformer.layers.multiplicative_modular import MultiplicativeModularDense
from terraformer.layers.parameter import tell
from terraformer.layers.projection import SeparateProjection


class ModularProjection(SeparateProjection):
  """Four multiplicative modular layers, or three where keys are queries."""

  def __init__(self, config: ModularProjectionConfig, d_model: int, n_heads: int, *, key: jax.Array):
    query_key, key_key, value_key, output_key = jax.random.split(key, 4)
    self.query = MultiplicativeModularDense(config.n_modules, d_model, key=query_key)
    self.key = None if config.share_qk else MultiplicativeModularDense(config.n_modules, d_model, key=key_key)
    self.value = MultiplicativeModularDense(config.n_modules, d_model, key=value_key)
    self.output = MultiplicativeModularDense(config.n_modules, d_model, key=output_key)
    tell(self.output, part='attention output')
    self.n_heads = n_heads
