"""The multiplicative dense layer, the paper's factored matrix (section 3.2).

D inputs, S modules, W outputs per module.
"""

import jax
from flax import nnx

from terraformer.layers.parameter import glorot_uniform, parameter, small_normal
from terraformer.ops.products import multiplicative


class MultiplicativeDense(nnx.Module):
  """Computes y[s, w] = sum_d x[d] gating[s, d] projection[d, w] + bias[s, w].

  Every output depends on every input, as in a dense layer, with about 1/S of its weights.
  """

  def __init__(self, n_modules: int, d_in: int, d_out: int, *, key: jax.Array):
    """Initializes the gating N(0, 0.5), the projection Glorot uniform, the bias N(0, 1e-6).

    Raises:
      ValueError: if `n_modules` does not divide `d_out`.
    """
    if d_out % n_modules:
      raise ValueError(f'd_out: expected a multiple of n_modules ({n_modules}), found {d_out}')
    width = d_out // n_modules
    gating_key, projection_key, bias_key = jax.random.split(key, 3)
    self.gating_SxD = parameter(jax.random.normal(gating_key, (n_modules, d_in)) * 0.5, ('modules', 'embed'))
    self.projection_DxW = parameter(glorot_uniform(projection_key, (d_in, width), d_in, width), ('embed', None))
    self.bias_SxW = parameter(small_normal(bias_key, (n_modules, width)), ('modules', None), decays=False)

  def __call__(self, x_xD: jax.Array) -> jax.Array:
    """Maps ...xD to ...x(S W), module by module; decoding calls it too."""
    y_xSxW = multiplicative(x_xD, self.gating_SxD[...], self.projection_DxW[...]) + self.bias_SxW[...]
    return y_xSxW.reshape(*x_xD.shape[:-1], -1)
