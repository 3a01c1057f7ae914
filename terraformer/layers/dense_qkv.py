"""Dense queries, keys and values, and the dense output that goes with them.

B batch, T time, D d_model, H heads, K head width.
"""

import jax
from flax import nnx

from terraformer.config import DenseProjectionConfig
from terraformer.layers.dense import Dense


class DenseProjection(nnx.Module):
  """Four dense layers; a head is a contiguous slice of d_model."""

  def __init__(self, config: DenseProjectionConfig, d_model: int, n_heads: int, *, key: jax.Array):
    keys = jax.random.split(key, 4)
    make = lambda key, axes: Dense(d_model, d_model, key=key, bias=config.bias, axes=axes)  # noqa: E731
    self.query, self.key, self.value = (make(key, ('embed', 'heads')) for key in keys[:3])
    self.output = make(keys[3], ('heads', 'embed'))
    self.n_heads = n_heads

  def _heads(self, x_xD: jax.Array) -> jax.Array:
    return x_xD.reshape(*x_xD.shape[:-1], self.n_heads, -1)

  def __call__(self, x_BxTxD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """All positions: queries, keys and values, BxTxHxK each."""
    return self._heads(self.query(x_BxTxD)), self._heads(self.key(x_BxTxD)), self._heads(self.value(x_BxTxD))

  def merge(self, y_xHxK: jax.Array) -> jax.Array:
    """The heads' results to ...xD."""
    return self.output(y_xHxK.reshape(*y_xHxK.shape[:-2], -1))

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array) -> tuple[tuple[jax.Array, jax.Array, jax.Array], None]:
    """As `__call__`; there is nothing to keep."""
    return self(x_BxTxD), None

  def init_cache(self, batch: int) -> None:
    """Nothing is kept between tokens."""

  def step(self, x_BxD: jax.Array, cache: None) -> tuple[tuple[jax.Array, jax.Array, jax.Array], None]:
    """One position: queries, keys and values, BxHxK each."""
    return self(x_BxD), None
