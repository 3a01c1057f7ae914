"""The sparse output layer: logits by a multiplicative dense layer (paper, section 3.2).

D inputs, S modules, W outputs a module.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import SparseOutputConfig
from terraformer.layers.parameter import glorot_uniform, parameter, small_normal


class SparseOutput(nnx.Module):
  """y[s, w] = sum_d x[d] gating[s, d] projection[w, d] + bias.

  `MultiplicativeDense`, but for the order in which its matrix lies: an output's weights side by side, as a CPU reads a
  large matrix fastest that it multiplies by a few vectors.
  """

  def __init__(self, config: SparseOutputConfig, d_model: int, vocab_size: int, *, key: jax.Array):
    """Gating N(0, 0.5), projection Glorot uniform, bias N(0, 1e-6).

    Raises:
      ValueError: if `config.n_modules` does not divide `vocab_size`.
    """
    n_modules = config.n_modules
    if vocab_size % n_modules:
      raise ValueError(f'sparse output: expected a vocabulary of a multiple of {n_modules}, found {vocab_size}')
    width = vocab_size // n_modules
    gating_key, projection_key, bias_key = jax.random.split(key, 3)
    self.gating_SxD = parameter(jax.random.normal(gating_key, (n_modules, d_model)) * 0.5, ('modules', 'embed'))
    projection_WxD = glorot_uniform(projection_key, (width, d_model), d_model, width)
    self.projection_WxD = parameter(projection_WxD, ('vocab', 'embed'))
    self.bias_SxW = parameter(small_normal(bias_key, (n_modules, width)), ('modules', 'vocab'), decays=False)

  def __call__(self, x_xD: jax.Array) -> jax.Array:
    """Logits ...x(S W), module by module."""
    gated_xSxD = x_xD[..., None, :] * self.gating_SxD[...]
    y_Wx_xS = jnp.einsum('WD,...SD->W...S', self.projection_WxD[...], gated_xSxD)
    y_xSxW = jnp.moveaxis(y_Wx_xS, 0, -1) + self.bias_SxW[...]
    return y_xSxW.reshape(*x_xD.shape[:-1], -1)
