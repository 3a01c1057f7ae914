"""The small convolution over time and modules that turns one projection into queries, keys or values (section 3.2).

B batch, T time, S modules, W width of a module, C positions that the kernel sees, E modules that it sees.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.layers.parameter import glorot_normal, parameter, small_normal
from terraformer.ops.constrain import split_by_example


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
    padding = kernel_CxExWxW.shape[1] // 2
    # Divided along the modules as well, the gradient of a kernel that sees several of them comes out wrong (XLA).
    y_BxTxSxW = jax.lax.conv_general_dilated(
      split_by_example(x_BxTxSxW),
      kernel_CxExWxW,
      window_strides=(1, 1),
      padding=((0, 0), (padding, padding)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return split_by_example(y_BxTxSxW) + self.bias_W[...]
