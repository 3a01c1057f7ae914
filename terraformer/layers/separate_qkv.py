"""Projections with a separate layer for queries, keys, values and output, dense or modular.

B batch, T time, D d_model, H heads, K head width.
"""

import jax
from flax import nnx

from terraformer.config import DenseProjectionConfig, ModularProjectionConfig
from terraformer.layers.dense import Dense
from terraformer.layers.multiplicative_modular import MultiplicativeModularDense
from terraformer.layers.parameter import add_facts
from terraformer.layers.projection import QKV, Projection, join_heads, split_heads


class SeparateProjection(Projection):
  """A projection with one layer each for queries, keys, values and output, and without caches.

  A subclass sets the layers `query`, `key` (None if keys are the queries), `value` and `output`, each ...xD to ...xD.
  """

  def __call__(self, x_xD: jax.Array, segment_BxT: jax.Array | None = None) -> QKV:
    """Returns queries, keys and values of all positions, ...xHxK each; a head is a contiguous slice of d_model."""
    q_xHxK = split_heads(self.query(x_xD), self.n_heads)
    k_xHxK = q_xHxK if self.key is None else split_heads(self.key(x_xD), self.n_heads)
    return q_xHxK, k_xHxK, split_heads(self.value(x_xD), self.n_heads)

  def query_step(self, x_BxD: jax.Array, cache: None) -> tuple[jax.Array, None]:
    """Returns only the queries of one position, BxHxK, and None as the cache."""
    return split_heads(self.query(x_BxD), self.n_heads), None

  @property
  def memory_layers(self) -> tuple[nnx.Module | None, ...]:
    """The layers of keys and of values."""
    return self.key, self.value

  def project_output(self, y_xHxK: jax.Array, segment_BxT: jax.Array | None = None) -> jax.Array:
    """Maps the heads' results to ...xD."""
    return self.output(join_heads(y_xHxK))


class DenseProjection(SeparateProjection):
  """Four dense layers, or three if keys are the queries."""

  def __init__(self, config: DenseProjectionConfig, d_model: int, n_heads: int, *, key: jax.Array):
    query_key, key_key, value_key, output_key = jax.random.split(key, 4)

    def make(key, axes):
      return Dense(d_model, d_model, key=key, bias=config.bias, axes=axes)

    self.query = make(query_key, ('embed', 'heads'))
    self.key = None if config.share_qk else make(key_key, ('embed', 'heads'))
    self.value = make(value_key, ('embed', 'heads'))
    self.output = make(output_key, ('heads', 'embed'))
    add_facts(self.output, group='attention output')
    self.n_heads = n_heads


class ModularProjection(SeparateProjection):
  """Four multiplicative modular layers, or three if keys are the queries."""

  def __init__(self, config: ModularProjectionConfig, d_model: int, n_heads: int, *, key: jax.Array):
    query_key, key_key, value_key, output_key = jax.random.split(key, 4)
    self.query = MultiplicativeModularDense(config.n_modules, d_model, key=query_key)
    self.key = None if config.share_qk else MultiplicativeModularDense(config.n_modules, d_model, key=key_key)
    self.value = MultiplicativeModularDense(config.n_modules, d_model, key=value_key)
    self.output = MultiplicativeModularDense(config.n_modules, d_model, key=output_key)
    add_facts(self.output, group='attention output')
    self.n_heads = n_heads
