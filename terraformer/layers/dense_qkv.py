"""Dense queries, keys and values, and the dense output that goes with them.

D d_model.
"""

import jax

from terraformer.config import DenseProjectionConfig
from terraformer.layers.dense import Dense
from terraformer.layers.parameter import tell
from terraformer.layers.projection import SeparateProjection


class DenseProjection(SeparateProjection):
  """Four dense layers, or three where keys are queries."""

  def __init__(self, config: DenseProjectionConfig, d_model: int, n_heads: int, *, key: jax.Array):
    query_key, key_key, value_key, output_key = jax.random.split(key, 4)

    def make(key, axes):
      return Dense(d_model, d_model, key=key, bias=config.bias, axes=axes)

    self.query = make(query_key, ('embed', 'heads'))
    self.key = None if config.share_qk else make(key_key, ('embed', 'heads'))
    self.value = make(value_key, ('embed', 'heads'))
    self.output = make(output_key, ('heads', 'embed'))
    tell(self.output, part='attention output')
    self.n_heads = n_heads
