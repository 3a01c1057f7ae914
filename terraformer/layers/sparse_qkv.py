"""Sparse queries, keys and values: one multiplicative dense layer, then a convolution each (section 3.2).

B batch, T time, D d_model, S modules, W width of a module, C positions of the kernel, H heads, K head width.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import SparseProjectionConfig
from terraformer.layers.modular_convolution import ModularConvolution
from terraformer.layers.multiplicative import MultiplicativeDense
from terraformer.ops.positions import last_positions


class SparseProjection(nnx.Module):
  """Queries and keys see neighbouring modules, values do not; attention's result is not projected again."""

  def __init__(self, config: SparseProjectionConfig, d_model: int, n_heads: int, *, key: jax.Array):
    shared_key, query_key, key_key, value_key = jax.random.split(key, 4)
    width = d_model // config.n_modules
    self.shared = MultiplicativeDense(config.n_modules, d_model, d_model, key=shared_key)
    self.query = ModularConvolution(width, config.length_kernel, config.module_kernel, key=query_key)
    self.key = ModularConvolution(width, config.length_kernel, config.module_kernel, key=key_key)
    self.value = ModularConvolution(width, config.length_kernel, 1, key=value_key)
    self.config = config
    self.n_heads = n_heads

  def _convolve(self, shared_BxTxD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values of the positions that have C - 1 others before them, BxTxHxK each."""
    batch, time, d_model = shared_BxTxD.shape
    shared_BxTxSxW = shared_BxTxD.reshape(batch, time, self.config.n_modules, -1)
    heads = (batch, time - self.config.length_kernel + 1, self.n_heads, d_model // self.n_heads)
    q, k, v = (convolution.valid(shared_BxTxSxW) for convolution in (self.query, self.key, self.value))
    return q.reshape(heads), k.reshape(heads), v.reshape(heads)

  def __call__(self, x_BxTxD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """All positions: queries, keys and values, BxTxHxK each."""
    return self.prefill(x_BxTxD, jnp.zeros(x_BxTxD.shape[0], jnp.int32))[0]

  def prefill(
    self, x_BxTxD: jax.Array, length_B: jax.Array
  ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array]:
    """All positions, and the cache after the first `length_B` of them."""
    shared_BxTxD = self.shared(x_BxTxD)
    history = self.config.length_kernel - 1
    qkv = self._convolve(jnp.pad(shared_BxTxD, ((0, 0), (history, 0), (0, 0))))
    return qkv, last_positions(shared_BxTxD, length_B, history)

  def merge(self, y_xHxK: jax.Array) -> jax.Array:
    """The heads' results to ...xD."""
    return y_xHxK.reshape(*y_xHxK.shape[:-2], -1)

  def init_cache(self, batch: int) -> jax.Array:
    """The shared projection of the last C - 1 positions, B x (C - 1) x D."""
    return jnp.zeros((batch, self.config.length_kernel - 1, self.shared.gating_SxD[...].shape[1]))

  def step(
    self, x_BxD: jax.Array, history_BxCxD: jax.Array
  ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array]:
    """One position: queries, keys and values, BxHxK each, and the new cache."""
    window_BxCxD = jnp.concatenate([history_BxCxD, self.shared(x_BxD)[:, None]], axis=1)
    q, k, v = self._convolve(window_BxCxD)
    return (q[:, 0], k[:, 0], v[:, 0]), window_BxCxD[:, 1:]
