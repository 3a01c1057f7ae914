"""Token embeddings.

D d_model, V vocabulary.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.layers.parameter import parameter


class Embedding(nnx.Module):
  """A trainable vector per token, initialized uniform in +-sqrt(3 / d_model). The vectors are used without scaling."""

  def __init__(self, vocab_size: int, d_model: int, *, key: jax.Array):
    bound = math.sqrt(3 / d_model)
    table_VxD = jax.random.uniform(key, (vocab_size, d_model), minval=-bound, maxval=bound)
    self.table_VxD = parameter(table_VxD, ('vocab', 'embed'), row_axis=-2, group='embedding')

  def __call__(self, tokens_x: jax.Array) -> jax.Array:
    """Maps tokens of any shape to vectors, float32 ...xD."""
    return self.table_VxD[...][tokens_x].astype(jnp.float32)
