"""Inputs, weights, stages, outputs and gradients computed once with the authors' code on a CPU in float32.

Their weights are perturbed by N(0, 0.1), biases and normalisation included, so that one that is left out shows.
Unless a test says otherwise, agreement is to `TOLERANCE`, absolute.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

TOLERANCE = 1e-4


def load(name: str) -> dict[str, np.ndarray]:
  """The arrays of one mechanism."""
  with np.load(Path(__file__).parent / 'vectors' / f'{name}.npz') as arrays:
    return dict(arrays)


def assign(layer: nnx.Module, **weights: np.ndarray) -> None:
  """Sets parameters of `layer` by attribute name; shapes must agree."""
  for name, value in weights.items():
    parameter = getattr(layer, name)
    assert parameter[...].shape == value.shape, f'{name}: {parameter[...].shape} here, {value.shape} in the reference'
    parameter.set_value(jnp.asarray(value))


def assign_sparse_projection(projection: nnx.Module, arrays: dict[str, np.ndarray]) -> None:
  """Loads the weights of `mult_conv_attention` into a sparse projection."""
  shared = projection.shared
  bias_SxW = arrays['w_mult_bias'].reshape(shared.bias_SxW[...].shape)
  assign(shared, gating_SxD=arrays['w_gating'], projection_DxW=arrays['w_projection'], bias_SxW=bias_SxW)
  for name, convolution in zip('qkv', (projection.query, projection.key, projection.value), strict=True):
    assign(convolution, kernel_CxExWxW=arrays[f'w_{name}_kernel'], bias_W=arrays[f'w_{name}_bias'])
