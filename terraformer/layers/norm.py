"""Layer normalisation.

D d_model.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.layers.parameter import parameter


class LayerNorm(nnx.Module):
  """Centred, divided by the root of the biased variance + 1e-6, scaled and shifted; float32 inside."""

  def __init__(self, d_model: int):
    self.scale_D = parameter(jnp.ones((d_model,)), (None,))
    self.bias_D = parameter(jnp.zeros((d_model,)), (None,))

  def __call__(self, x_xD: jax.Array) -> jax.Array:
    """Normalises the last axis; same shape."""
    x_xD = x_xD.astype(jnp.float32)
    x_xD -= x_xD.mean(-1, keepdims=True)
    x_xD *= jax.lax.rsqrt((x_xD * x_xD).mean(-1, keepdims=True) + 1e-6)
    return x_xD * self.scale_D[...] + self.bias_D[...]
