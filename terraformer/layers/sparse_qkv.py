"""Sparse queries, keys and values: one multiplicative dense layer, then a convolution each (section 3.2).

B batch, T time, D d_model, S modules, W width of a module, C positions that the kernel sees, H heads, K head width.
"""

import dataclasses

import jax
import jax.numpy as jnp

from terraformer.config import SparseProjectionConfig
from terraformer.layers.modular_convolution import ModularConvolution
from terraformer.layers.multiplicative import MultiplicativeDense
from terraformer.layers.projection import QKV, Projection, join_heads, split_heads
from terraformer.ops.positions import last_positions


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class History:
  """The last C - 1 positions, that the convolutions of the next one see.

  Attributes:
    shared_BxCxD: the multiplicative layer's output.
    input_BxCxD: the layer's input, where values see it too; else None.
  """

  shared_BxCxD: jax.Array
  input_BxCxD: jax.Array | None


class SparseProjection(Projection):
  """Queries and keys see neighbouring modules, values do not; by default attention's result is not projected again."""

  def __init__(self, config: SparseProjectionConfig, d_model: int, n_heads: int, *, key: jax.Array):
    shared_key, query_key, key_key, value_key, multiplicative_key, convolution_key = jax.random.split(key, 6)
    width = d_model // config.n_modules
    value_width = 2 * width if config.value_reads_input else width
    wide = (config.length_kernel, config.module_kernel)
    self.shared = MultiplicativeDense(config.n_modules, d_model, d_model, key=shared_key)
    self.query = ModularConvolution(width, *wide, key=query_key)
    self.key = None if config.share_qk else ModularConvolution(width, *wide, key=key_key)
    self.value = ModularConvolution(width, config.length_kernel, 1, width_in=value_width, key=value_key)
    self.output = (
      MultiplicativeDense(config.n_modules, d_model, d_model, key=multiplicative_key)
      if config.output_multiplicative
      else None
    )
    self.output_convolution = (
      ModularConvolution(width, *wide, key=convolution_key) if config.output_convolution else None
    )
    self.config = config
    self.n_heads = n_heads

  def _modules(self, x_BxTxD: jax.Array) -> jax.Array:
    return x_BxTxD.reshape(*x_BxTxD.shape[:2], self.config.n_modules, -1)

  def _value_input(self, shared_BxTxD: jax.Array, input_BxTxD: jax.Array | None) -> jax.Array:
    if input_BxTxD is None:
      return self._modules(shared_BxTxD)
    if self.config.value_by_module:
      return jnp.concatenate([self._modules(shared_BxTxD), self._modules(input_BxTxD)], axis=-1)
    return self._modules(jnp.concatenate([shared_BxTxD, input_BxTxD], axis=-1))

  def _read(self, x_xD: jax.Array) -> History:
    """What the convolutions see, of as many positions."""
    return History(self.shared(x_xD), x_xD if self.config.value_reads_input else None)

  def _convolve(self, convolve, read: History) -> QKV:
    """Queries, keys and values ...xHxK by one of the forms of a convolution: `valid`, `within` segments, or `last` for
    one position."""
    shared_BxTxSxW = self._modules(read.shared_BxCxD)
    q_xSxW = convolve(self.query, shared_BxTxSxW)
    k_xSxW = q_xSxW if self.key is None else convolve(self.key, shared_BxTxSxW)
    v_xSxW = convolve(self.value, self._value_input(read.shared_BxCxD, read.input_BxCxD))
    q, k, v = (split_heads(join_heads(x), self.n_heads) for x in (q_xSxW, k_xSxW, v_xSxW))
    return q, k, v

  def __call__(self, x_BxTxD: jax.Array, segment_BxT: jax.Array | None = None) -> QKV:
    """Queries, keys and values of all positions, BxTxHxK each."""
    if segment_BxT is None:
      return self.prefill(x_BxTxD, jnp.zeros(x_BxTxD.shape[0], jnp.int32))[0]
    return self._convolve(lambda layer, x_BxTxSxV: layer.within(x_BxTxSxV, segment_BxT), self._read(x_BxTxD))

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array) -> tuple[QKV, History]:
    """All positions, and the cache after the first `length_B` of them."""
    read = self._read(x_BxTxD)
    history = self.config.length_kernel - 1
    padded = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (history, 0), (0, 0))), read)
    kept = jax.tree.map(lambda x: last_positions(x, length_B, history), read)
    return self._convolve(ModularConvolution.valid, padded), kept

  def init_cache(self, batch: int) -> History:
    """Zeros stand before the first position."""
    zeros_BxCxD = self._empty(batch)
    return History(zeros_BxCxD, zeros_BxCxD if self.config.value_reads_input else None)

  def step(self, x_BxD: jax.Array, cache: History) -> tuple[QKV, History]:
    """One position: queries, keys and values, BxHxK each, and the new cache."""
    read = self._read(x_BxD)
    window = jax.tree.map(lambda old, new: jnp.concatenate([old, new[:, None]], axis=1), cache, read)
    return self._convolve(ModularConvolution.last, window), jax.tree.map(lambda x: x[:, 1:], window)

  def _mix(self, y_xHxK: jax.Array) -> jax.Array:
    y_xD = join_heads(y_xHxK)
    return y_xD if self.output is None else self.output(y_xD)

  def merge(self, y_BxTxHxK: jax.Array, segment_BxT: jax.Array | None = None) -> jax.Array:
    """The heads' results of all positions to BxTxD."""
    if segment_BxT is None or self.output_convolution is None:
      return self.merge_prefill(y_BxTxHxK, jnp.zeros(y_BxTxHxK.shape[0], jnp.int32))[0]
    return join_heads(self.output_convolution.within(self._modules(self._mix(y_BxTxHxK)), segment_BxT))

  def init_merge_cache(self, batch: int) -> jax.Array | None:
    """What the output's convolution sees before the first position, B x (C - 1) x D; None without one."""
    return None if self.output_convolution is None else self._empty(batch)

  def merge_prefill(self, y_BxTxHxK: jax.Array, length_B: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """All positions, BxTxD, and the cache after the first `length_B` of them."""
    y_BxTxD = self._mix(y_BxTxHxK)
    if self.output_convolution is None:
      return y_BxTxD, None
    kept_BxCxD = last_positions(y_BxTxD, length_B, self.config.length_kernel - 1)
    return join_heads(self.output_convolution(self._modules(y_BxTxD))), kept_BxCxD

  def merge_step(self, y_BxHxK: jax.Array, cache: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """One position, BxD, and the new cache."""
    y_BxD = self._mix(y_BxHxK)
    if self.output_convolution is None:
      return y_BxD, None
    window_BxCxD = jnp.concatenate([cache, y_BxD[:, None]], axis=1)
    return join_heads(self.output_convolution.last(self._modules(window_BxCxD))), window_BxCxD[:, 1:]

  def _empty(self, batch: int) -> jax.Array:
    return jnp.zeros((batch, self.config.length_kernel - 1, self.shared.gating_SxD.get_value().shape[1]))
