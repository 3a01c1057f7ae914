"""Normalization of the last axis.

D d_model.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import LayerNormConfig, RMSNormConfig
from terraformer.layers.parameter import parameter

EPSILON = 1e-6


def _unit_square(x_xD: jax.Array) -> jax.Array:
  """Returns `x` divided by sqrt(mean square + epsilon)."""
  return x_xD * jax.lax.rsqrt((x_xD * x_xD).mean(-1, keepdims=True) + EPSILON)


class LayerNorm(nnx.Module):
  """Subtracts the mean, divides by sqrt(biased variance + 1e-6), scales and shifts; computes in float32."""

  def __init__(self, config: LayerNormConfig, d_model: int):
    self.scale_D = parameter(jnp.ones((d_model,)), (None,), decays=False)
    self.bias_D = parameter(jnp.zeros((d_model,)), (None,), decays=False)

  def __call__(self, x_xD: jax.Array) -> jax.Array:
    """Normalizes the last axis; same shape."""
    x_xD = x_xD.astype(jnp.float32)
    return _unit_square(x_xD - x_xD.mean(-1, keepdims=True)) * self.scale_D[...] + self.bias_D[...]


class RMSNorm(nnx.Module):
  """Divides by sqrt(mean square + 1e-6) and scales, without centering or shifting; computes in float32."""

  def __init__(self, config: RMSNormConfig, d_model: int):
    self.scale_D = parameter(jnp.ones((d_model,)), (None,), decays=False)

  def __call__(self, x_xD: jax.Array) -> jax.Array:
    """Normalizes the last axis; same shape."""
    return _unit_square(x_xD.astype(jnp.float32)) * self.scale_D[...]
