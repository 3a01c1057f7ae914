"""The small convolution over time and modules that turns one projection into queries, keys or values (section 3.2).

B batch, T time, S modules, V inputs and W outputs per module, C positions and E modules that the kernel covers,
F = C V, P positions: padded by C - 1, or the C - 1 positions of a cache, Z padded modules.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.layers.parameter import glorot_normal, parameter, small_normal
from terraformer.ops.constrain import split_by_example
from terraformer.ops.positions import last_positions
from terraformer.ops.segments import taps_within


class ModularConvolution(nnx.Module):
  """A causal convolution over (time, modules). All modules share its kernel and bias."""

  def __init__(
    self, width: int, length_kernel: int, module_kernel: int, *, key: jax.Array, width_in: int | None = None
  ):
    """Initializes the kernel Glorot normal, with the fans of one tap as in the authors' code, the bias N(0, 1e-6).

    Args:
      width: outputs per module.
      length_kernel: positions that the kernel covers.
      module_kernel: modules that the kernel covers, odd.
      key: random key for the initial values.
      width_in: inputs per module; by default equal to `width`.
    """
    width_in = width_in or width
    kernel_key, bias_key = jax.random.split(key)
    kernel_CxExVxW = glorot_normal(kernel_key, (length_kernel, module_kernel, width_in, width), width_in, width)
    self.kernel_CxExVxW = parameter(kernel_CxExVxW, (None, None, None, None))
    self.bias_W = parameter(small_normal(bias_key, (width,)), (None,), decays=False)

  def __call__(self, x_BxTxSxV: jax.Array) -> jax.Array:
    """Computes all positions, BxTxSxW, with zeros before the first."""
    n_before = self.kernel_CxExVxW[...].shape[0] - 1
    return self.valid(jnp.pad(x_BxTxSxV, ((0, 0), (n_before, 0), (0, 0), (0, 0))))

  def valid(self, x_BxTxSxV: jax.Array) -> jax.Array:
    """Computes the positions after the first C - 1: B x (T - C + 1) x S x W."""
    return self._convolve(x_BxTxSxV, self.kernel_CxExVxW[...])

  def within(self, x_BxTxSxV: jax.Array, segment_BxT: jax.Array) -> jax.Array:
    """Computes all positions of packed rows, BxTxSxW, with zeros before the first position of each segment.

    The C positions that the kernel covers become the F inputs of one position, so those of other segments can be zero.
    """
    kernel_CxExVxW = self.kernel_CxExVxW[...]
    length_kernel, module_kernel, width_in, width = kernel_CxExVxW.shape
    taps_BxTxSxCxV = taps_within(x_BxTxSxV, segment_BxT, length_kernel).swapaxes(2, 3)
    joined_BxTxSxF = taps_BxTxSxCxV.reshape(*x_BxTxSxV.shape[:3], length_kernel * width_in)
    joined_1xExFxW = kernel_CxExVxW.swapaxes(0, 1).reshape(1, module_kernel, length_kernel * width_in, width)
    return self._convolve(joined_BxTxSxF, joined_1xExFxW)

  def _convolve(self, x_BxPxSxV: jax.Array, kernel_CxExVxW: jax.Array) -> jax.Array:
    padding = kernel_CxExVxW.shape[1] // 2
    # If modules are sharded too, XLA computes a wrong gradient of a kernel that covers several modules.
    y_BxTxSxW = jax.lax.conv_general_dilated(
      split_by_example(x_BxPxSxV),
      kernel_CxExVxW,
      window_strides=(1, 1),
      padding=((0, 0), (padding, padding)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return split_by_example(y_BxTxSxW) + self.bias_W[...]

  def init_cache(self, batch: int, n_modules: int) -> jax.Array:
    """Returns the cache before the first position, B x S x (C - 1) x E x V: zeros for the C - 1 positions before it."""
    n_positions, *seen = self.kernel_CxExVxW[...].shape[:3]
    return jnp.zeros((batch, n_modules, n_positions - 1, *seen))

  def cache_after(self, x_BxTxSxV: jax.Array, length_B: jax.Array) -> jax.Array:
    """Returns the cache after the first `length_B` positions."""
    n_positions = self.kernel_CxExVxW[...].shape[0]
    flat_BxTxD = x_BxTxSxV.reshape(*x_BxTxSxV.shape[:2], -1)
    last_BxCxD = last_positions(flat_BxTxD, length_B, n_positions - 1)
    return self._neighbors(last_BxCxD.reshape(*last_BxCxD.shape[:2], *x_BxTxSxV.shape[2:]))

  def window_step(self, x_BxSxV: jax.Array, cache_BxSxPxExV: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the inputs that the kernel covers at one position, B x S x C x E x V, and the new cache.

    Convolutions with the same input and kernel size can share both.
    """
    window_BxSxCxExV = jnp.concatenate([cache_BxSxPxExV, self._neighbors(x_BxSxV[:, None])], axis=2)
    return window_BxSxCxExV, window_BxSxCxExV[:, :, 1:]

  def apply_to_window(self, window_BxSxCxExV: jax.Array) -> jax.Array:
    """Returns the output of one position, BxSxW; for so few rows a matrix product is faster than a convolution."""
    return jnp.einsum('BSCEV,CEVW->BSW', window_BxSxCxExV, self.kernel_CxExVxW[...]) + self.bias_W[...]

  def _neighbors(self, x_BxTxSxV: jax.Array) -> jax.Array:
    """Returns the modules that the kernel covers around each module, B x S x T x E x V."""
    n_seen, n_modules = self.kernel_CxExVxW[...].shape[1], x_BxTxSxV.shape[2]
    padded_BxTxZxV = jnp.pad(x_BxTxSxV, ((0, 0), (0, 0), (n_seen // 2, n_seen // 2), (0, 0)))
    return jnp.stack([padded_BxTxZxV[:, :, e : e + n_modules] for e in range(n_seen)], axis=3).swapaxes(1, 2)
