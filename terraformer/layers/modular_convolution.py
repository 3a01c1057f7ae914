"""The small convolution over time and modules that turns one projection into queries, keys or values (section 3.2).

B batch, T time, S modules, W width of a module, C positions that the kernel sees, E modules that it sees.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.layers.parameter import glorot_normal, parameter, small_normal


class ModularConvolution(nnx.Module):
  """A convolution over (time, modules); its kernel and bias are shared by all modules, and it never looks ahead."""

  def __init__(self, width: int, length_kernel: int, module_kernel: int, *, key: jax.Array):
    """Kernel Glorot normal, with the fans of one tap as in the authors' code; bias N(0, 1e-6)."""
    kernel_key, bias_key = jax.random.split(key)
    kernel_CxExWxW = glorot_normal(kernel_key, (length_kernel, module_kernel, width, width), width, width)
    self.kernel_CxExWxW = parameter(kernel_CxExWxW, (None, None, None, None))
    self.bias_W = parameter(small_normal(bias_key, (width,)), (None,))

  def __call__(self, x_BxTxSxW: jax.Array) -> jax.Array:
    """All positions: zeros stand before the first one. Same shape."""
    length_kernel = self.kernel_CxExWxW[...].shape[0]
    return self.valid(jnp.pad(x_BxTxSxW, ((0, 0), (length_kernel - 1, 0), (0, 0), (0, 0))))

  def valid(self, x_BxTxSxW: jax.Array) -> jax.Array:
    """Only the positions that have C - 1 others before them: B x (T - C + 1) x S x W."""
    kernel_CxExWxW = self.kernel_CxExWxW[...]
    length_kernel, module_kernel, _, _ = kernel_CxExWxW.shape
    time, n_modules = x_BxTxSxW.shape[1:3]
    padding = module_kernel // 2
    padded_BxTxSxW = jnp.pad(x_BxTxSxW, ((0, 0), (0, 0), (padding, padding), (0, 0)))
    # One matrix product over the gathered taps: on CPU three times as fast as the convolution primitive's gradient.
    taps_BxTxSxCW = jnp.concatenate(
      [
        padded_BxTxSxW[:, c : time - length_kernel + 1 + c, e : n_modules + e]
        for c in range(length_kernel)
        for e in range(module_kernel)
      ],
      axis=-1,
    )
    kernel_CWxW = kernel_CxExWxW.reshape(-1, kernel_CxExWxW.shape[-1])
    return taps_BxTxSxCW @ kernel_CWxW + self.bias_W[...]
