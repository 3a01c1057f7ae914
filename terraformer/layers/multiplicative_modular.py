"""A multiplicative dense layer followed by a dense layer per module, one of the paper's alternatives (section 3.2).

D inputs and outputs, S modules, W = D / S inputs and V = W outputs per module.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.layers.parameter import glorot_uniform, parameter, small_normal
from terraformer.ops.products import multiplicative


class MultiplicativeModularDense(nnx.Module):
  """Computes y[s] = ((x * gating[s]) projection) modular[s] + bias[s]: each module has its own dense layer."""

  def __init__(self, n_modules: int, d_model: int, *, key: jax.Array):
    """Initializes the gating N(0, 0.5), the other kernels Glorot uniform (fans of one module), the bias N(0, 1e-6).

    Raises:
      ValueError: if `n_modules` does not divide `d_model`.
    """
    if d_model % n_modules:
      raise ValueError(f'd_model: expected a multiple of n_modules ({n_modules}), found {d_model}')
    width = d_model // n_modules
    gating_key, projection_key, modular_key, bias_key = jax.random.split(key, 4)
    self.gating_SxD = parameter(jax.random.normal(gating_key, (n_modules, d_model)) * 0.5, ('modules', 'embed'))
    self.projection_DxW = parameter(glorot_uniform(projection_key, (d_model, width), d_model, width), ('embed', None))
    modular_SxWxV = glorot_uniform(modular_key, (n_modules, width, width), width, width)
    self.modular_SxWxV = parameter(modular_SxWxV, ('modules', None, None))
    self.bias_SxV = parameter(small_normal(bias_key, (n_modules, width)), ('modules', None), decays=False)

  def __call__(self, x_xD: jax.Array) -> jax.Array:
    """Maps ...xD to ...x(S V), module by module; decoding calls it too."""
    projected_xSxW = multiplicative(x_xD, self.gating_SxD[...], self.projection_DxW[...])
    y_xSxV = jnp.einsum('...SW,SWV->...SV', projected_xSxW, self.modular_SxWxV[...]) + self.bias_SxV[...]
    return y_xSxV.reshape(x_xD.shape)
