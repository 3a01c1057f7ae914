"""Sparse queries, keys and values: a shared multiplicative dense layer, then one convolution for each (section 3.2).

B batch, T time, D d_model, S modules, W width of a module, V inputs per module, C positions and E modules that a kernel
covers, H heads, K head width.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from terraformer.config import SparseProjectionConfig
from terraformer.layers.modular_convolution import ModularConvolution
from terraformer.layers.multiplicative import MultiplicativeDense
from terraformer.layers.parameter import add_facts
from terraformer.layers.projection import QKV, Projection, join_heads, split_heads


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConvolutionCaches:
  """The caches of the convolutions, see `ModularConvolution.init_cache`.

  Attributes:
    query_key: cache of queries and keys, which have the same input.
    value: cache of values.
  """

  query_key: jax.Array
  value: jax.Array


class SparseProjection(Projection):
  """The paper's sparse projection, in which only queries and keys see neighboring modules.

  By default, the output is the heads' results without another projection.
  """

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
    add_facts(self.output, group='attention output')
    add_facts(self.output_convolution, group='attention output')
    self.config = config
    self.n_heads = n_heads

  def _modules(self, x_xD: jax.Array) -> jax.Array:
    return x_xD.reshape(*x_xD.shape[:-1], self.config.n_modules, -1)

  def _read(self, shared_xD: jax.Array, x_xD: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the input of the convolutions for queries and keys, and that of the one for values, ...xSxV each."""
    shared_xSxW = self._modules(shared_xD)
    if not self.config.value_reads_input:
      return shared_xSxW, shared_xSxW
    if self.config.value_by_module:
      return shared_xSxW, jnp.concatenate([shared_xSxW, self._modules(x_xD)], axis=-1)
    return shared_xSxW, self._modules(jnp.concatenate([shared_xD, x_xD], axis=-1))

  def _convolve(self, convolve, read: jax.Array, value_read: jax.Array) -> QKV:
    """Returns queries, keys and values, ...xHxK each.

    `convolve` is a method of `ModularConvolution`: `valid`, `within` segments, or `apply_to_window` for one position.
    """
    q_xSxW = convolve(self.query, read)
    k_xSxW = q_xSxW if self.key is None else convolve(self.key, read)
    v_xSxW = convolve(self.value, value_read)
    q, k, v = (split_heads(join_heads(x), self.n_heads) for x in (q_xSxW, k_xSxW, v_xSxW))
    return q, k, v

  def _convolve_all(self, shared_BxTxD: jax.Array, x_BxTxD: jax.Array) -> QKV:
    """Returns queries, keys and values of all positions of unpacked sequences, with zeros before the first."""
    # Pad once, before the split into modules. If each convolution padded its input, XLA would fuse the padding
    # differently in the forward and backward pass, and an exact reversible stack would not recompute the same bits.
    before = ((0, 0), (self.config.length_kernel - 1, 0), (0, 0))
    padded = self._read(jnp.pad(shared_BxTxD, before), jnp.pad(x_BxTxD, before))
    return self._convolve(ModularConvolution.valid, *padded)

  def __call__(self, x_BxTxD: jax.Array, segment_BxT: jax.Array | None = None) -> QKV:
    """Returns queries, keys and values of all positions, BxTxHxK each."""
    shared_BxTxD = self.shared(x_BxTxD)
    if segment_BxT is None:
      return self._convolve_all(shared_BxTxD, x_BxTxD)
    within = functools.partial(ModularConvolution.within, segment_BxT=segment_BxT)
    return self._convolve(within, *self._read(shared_BxTxD, x_BxTxD))

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array) -> tuple[QKV, ConvolutionCaches]:
    """Computes all positions and the cache after the first `length_B` of them."""
    shared_BxTxD = self.shared(x_BxTxD)
    read, value_read = self._read(shared_BxTxD, x_BxTxD)
    caches = ConvolutionCaches(self.query.cache_after(read, length_B), self.value.cache_after(value_read, length_B))
    return self._convolve_all(shared_BxTxD, x_BxTxD), caches

  def init_cache(self, batch: int) -> ConvolutionCaches:
    """Returns the cache before the first position, all zero."""
    n_modules = self.config.n_modules
    return ConvolutionCaches(self.query.init_cache(batch, n_modules), self.value.init_cache(batch, n_modules))

  def step(self, x_BxD: jax.Array, cache: ConvolutionCaches) -> tuple[QKV, ConvolutionCaches]:
    """Returns queries, keys and values of one position, BxHxK each, and the new cache."""
    read, value_read = self._read(self.shared(x_BxD), x_BxD)
    window, query_key = self.query.window_step(read, cache.query_key)
    value_window, value = self.value.window_step(value_read, cache.value)
    return self._convolve(ModularConvolution.apply_to_window, window, value_window), ConvolutionCaches(query_key, value)

  def query_step(self, x_BxD: jax.Array, cache: ConvolutionCaches) -> tuple[jax.Array, ConvolutionCaches]:
    """Returns only the queries of one position, BxHxK, and the new cache, with that of values unchanged."""
    read, _ = self._read(self.shared(x_BxD), x_BxD)
    window, query_key = self.query.window_step(read, cache.query_key)
    return split_heads(join_heads(self.query.apply_to_window(window)), self.n_heads), ConvolutionCaches(
      query_key, cache.value
    )

  @property
  def memory_layers(self) -> tuple[ModularConvolution | None, ...]:
    """The convolutions of keys and of values."""
    return self.key, self.value

  def _mix(self, y_xHxK: jax.Array) -> jax.Array:
    y_xD = join_heads(y_xHxK)
    return y_xD if self.output is None else self.output(y_xD)

  def project_output(self, y_BxTxHxK: jax.Array, segment_BxT: jax.Array | None = None) -> jax.Array:
    """Maps the heads' results at all positions to BxTxD."""
    y_BxTxD = self._mix(y_BxTxHxK)
    if self.output_convolution is None:
      return y_BxTxD
    y_BxTxSxW = self._modules(y_BxTxD)
    if segment_BxT is None:
      return join_heads(self.output_convolution(y_BxTxSxW))
    return join_heads(self.output_convolution.within(y_BxTxSxW, segment_BxT))

  def init_output_cache(self, batch: int) -> jax.Array | None:
    """Returns the cache of the output convolution before the first position; None if there is no such convolution."""
    convolution = self.output_convolution
    return None if convolution is None else convolution.init_cache(batch, self.config.n_modules)

  def output_prefill(self, y_BxTxHxK: jax.Array, length_B: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Computes the output at all positions, BxTxD, and the cache after the first `length_B` of them."""
    y_BxTxD = self._mix(y_BxTxHxK)
    if self.output_convolution is None:
      return y_BxTxD, None
    y_BxTxSxW = self._modules(y_BxTxD)
    cache = self.output_convolution.cache_after(y_BxTxSxW, length_B)
    return join_heads(self.output_convolution(y_BxTxSxW)), cache

  def output_step(self, y_BxHxK: jax.Array, cache: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """Computes the output at one position, BxD, and the new cache."""
    y_BxD = self._mix(y_BxHxK)
    if self.output_convolution is None:
      return y_BxD, None
    window_BxSxCxExV, cache = self.output_convolution.window_step(self._modules(y_BxD), cache)
    return join_heads(self.output_convolution.apply_to_window(window_BxSxCxExV)), cache
