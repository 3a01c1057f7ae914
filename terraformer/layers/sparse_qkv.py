"""Sparse queries, keys and values: one multiplicative dense layer, then a convolution each (section 3.2).

B batch, T time, D d_model, S modules, W width of a module, C positions that the kernel sees, H heads, K head width.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from terraformer.config import SparseProjectionConfig
from terraformer.layers.modular_convolution import ModularConvolution
from terraformer.layers.multiplicative import MultiplicativeDense
from terraformer.layers.parameter import tell
from terraformer.layers.projection import QKV, Projection, join_heads, split_heads


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class History:
  """What the convolutions of the next position see of those before it; each as `ModularConvolution` keeps it.

  Attributes:
    query_key: queries and keys, which see the same.
    value: values.
  """

  query_key: jax.Array
  value: jax.Array


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
    tell(self.output, group='attention output')
    tell(self.output_convolution, group='attention output')
    self.config = config
    self.n_heads = n_heads

  def _modules(self, x_xD: jax.Array) -> jax.Array:
    return x_xD.reshape(*x_xD.shape[:-1], self.config.n_modules, -1)

  def _read(self, shared_xD: jax.Array, x_xD: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the convolutions of queries and keys read, and what that of values does, ...xSxV each."""
    shared_xSxW = self._modules(shared_xD)
    if not self.config.value_reads_input:
      return shared_xSxW, shared_xSxW
    if self.config.value_by_module:
      return shared_xSxW, jnp.concatenate([shared_xSxW, self._modules(x_xD)], axis=-1)
    return shared_xSxW, self._modules(jnp.concatenate([shared_xD, x_xD], axis=-1))

  def _convolve(self, convolve, read: jax.Array, value_read: jax.Array) -> QKV:
    """Queries, keys and values ...xHxK by one of the forms of a convolution: `valid`, `within` segments, or `last` for
    one position."""
    q_xSxW = convolve(self.query, read)
    k_xSxW = q_xSxW if self.key is None else convolve(self.key, read)
    v_xSxW = convolve(self.value, value_read)
    q, k, v = (split_heads(join_heads(x), self.n_heads) for x in (q_xSxW, k_xSxW, v_xSxW))
    return q, k, v

  def _convolve_all(self, shared_BxTxD: jax.Array, x_BxTxD: jax.Array) -> QKV:
    """Queries, keys and values of all positions of one sequence, before which there are zeros."""
    # Padded once, before it is divided into modules: padded by each convolution, XLA fuses it differently forwards and
    # backwards, and an exact reversible stack no longer reads the same bits.
    before = ((0, 0), (self.config.length_kernel - 1, 0), (0, 0))
    padded = self._read(jnp.pad(shared_BxTxD, before), jnp.pad(x_BxTxD, before))
    return self._convolve(ModularConvolution.valid, *padded)

  def __call__(self, x_BxTxD: jax.Array, segment_BxT: jax.Array | None = None) -> QKV:
    """Queries, keys and values of all positions, BxTxHxK each."""
    shared_BxTxD = self.shared(x_BxTxD)
    if segment_BxT is None:
      return self._convolve_all(shared_BxTxD, x_BxTxD)
    within = functools.partial(ModularConvolution.within, segment_BxT=segment_BxT)
    return self._convolve(within, *self._read(shared_BxTxD, x_BxTxD))

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array) -> tuple[QKV, History]:
    """All positions, and the cache after the first `length_B` of them."""
    shared_BxTxD = self.shared(x_BxTxD)
    read, value_read = self._read(shared_BxTxD, x_BxTxD)
    history = History(self.query.cache_after(read, length_B), self.value.cache_after(value_read, length_B))
    return self._convolve_all(shared_BxTxD, x_BxTxD), history

  def init_cache(self, batch: int) -> History:
    """Zeros stand before the first position."""
    n_modules = self.config.n_modules
    return History(self.query.init_cache(batch, n_modules), self.value.init_cache(batch, n_modules))

  def step(self, x_BxD: jax.Array, cache: History) -> tuple[QKV, History]:
    """One position: queries, keys and values, BxHxK each, and the new cache."""
    read, value_read = self._read(self.shared(x_BxD), x_BxD)
    seen, query_key = self.query.see(read, cache.query_key)
    value_seen, value = self.value.see(value_read, cache.value)
    return self._convolve(ModularConvolution.last, seen, value_seen), History(query_key, value)

  def query_step(self, x_BxD: jax.Array, cache: History) -> tuple[jax.Array, History]:
    """One position's queries alone, BxHxK, and the new cache, in which what values see stays as it is."""
    read, _ = self._read(self.shared(x_BxD), x_BxD)
    seen, query_key = self.query.see(read, cache.query_key)
    return split_heads(join_heads(self.query.last(seen)), self.n_heads), History(query_key, cache.value)

  @property
  def of_memory(self) -> tuple[ModularConvolution | None, ...]:
    """The convolutions of keys and of values."""
    return self.key, self.value

  def _mix(self, y_xHxK: jax.Array) -> jax.Array:
    y_xD = join_heads(y_xHxK)
    return y_xD if self.output is None else self.output(y_xD)

  def project_output(self, y_BxTxHxK: jax.Array, segment_BxT: jax.Array | None = None) -> jax.Array:
    """The heads' results of all positions to BxTxD."""
    y_BxTxD = self._mix(y_BxTxHxK)
    if self.output_convolution is None:
      return y_BxTxD
    y_BxTxSxW = self._modules(y_BxTxD)
    if segment_BxT is None:
      return join_heads(self.output_convolution(y_BxTxSxW))
    return join_heads(self.output_convolution.within(y_BxTxSxW, segment_BxT))

  def init_output_cache(self, batch: int) -> jax.Array | None:
    """What the output's convolution sees before the first position, as it keeps it; None without one."""
    convolution = self.output_convolution
    return None if convolution is None else convolution.init_cache(batch, self.config.n_modules)

  def output_prefill(self, y_BxTxHxK: jax.Array, length_B: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """All positions, BxTxD, and the cache after the first `length_B` of them."""
    y_BxTxD = self._mix(y_BxTxHxK)
    if self.output_convolution is None:
      return y_BxTxD, None
    y_BxTxSxW = self._modules(y_BxTxD)
    cache = self.output_convolution.cache_after(y_BxTxSxW, length_B)
    return join_heads(self.output_convolution(y_BxTxSxW)), cache

  def output_step(self, y_BxHxK: jax.Array, cache: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """One position, BxD, and the new cache."""
    y_BxD = self._mix(y_BxHxK)
    if self.output_convolution is None:
      return y_BxD, None
    seen_BxSxCxExV, cache = self.output_convolution.see(self._modules(y_BxD), cache)
    return join_heads(self.output_convolution.last(seen_BxSxCxExV)), cache
