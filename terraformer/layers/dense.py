"""A dense layer.

D inputs, F outputs.
"""

import jax
from flax import nnx

from terraformer.layers.parameter import glorot_uniform, parameter, small_normal


class Dense(nnx.Module):
  """Computes y = x kernel + bias on the last axis."""

  def __init__(self, d_in: int, d_out: int, *, key: jax.Array, bias: bool = True, axes=('embed', None)):
    """Initializes the kernel Glorot uniform, the bias N(0, 1e-6). `axes` are the names of the kernel's dimensions."""
    kernel_key, bias_key = jax.random.split(key)
    self.kernel_DxF = parameter(glorot_uniform(kernel_key, (d_in, d_out), d_in, d_out), axes)
    self.bias_F = parameter(small_normal(bias_key, (d_out,)), axes[1:], decays=False) if bias else None

  def __call__(self, x_xD: jax.Array) -> jax.Array:
    """Maps ...xD to ...xF; decoding calls it too."""
    y_xF = x_xD @ self.kernel_DxF[...]
    return y_xF if self.bias_F is None else y_xF + self.bias_F[...]
