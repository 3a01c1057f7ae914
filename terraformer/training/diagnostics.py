"""Diagnostics of a model during a run.

L layers, M blocks, N units per block.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.layers.parameter import ModelFacts
from terraformer.models.parameters import Params, flatten


def gradient_squares(gradients: Params, facts: ModelFacts) -> dict[str, jax.Array]:
  """Returns squared gradient norms by part of the model: a scalar, or a vector L for the layers of a stack."""
  squares: dict[str, list[jax.Array]] = {}
  for path, gradient in flatten(gradients).items():
    part = path.split('.')[0]
    is_layers = facts[path].loop == 'blocks'
    axes = tuple(range(1 if is_layers else 0, gradient.ndim))
    squares.setdefault(part, []).append(jnp.square(gradient.astype(jnp.float32)).sum(axes))
  return {part: sum(values) for part, values in squares.items()}


def unit_usage(counts_LxMxN: np.ndarray) -> dict[str, np.ndarray]:
  """Returns how evenly controllers select units.

  Args:
    counts_LxMxN: how often each unit was selected.

  Returns:
    `entropy_L`, the entropy of a block's selections as a share of log N, averaged over blocks: 1 if all units are
    equally likely, 0 if one is always selected; `dead_L`, the share of units that were never selected.
  """
  counts = np.asarray(counts_LxMxN, np.float64)
  share = counts / np.maximum(counts.sum(-1, keepdims=True), 1)
  logs = np.log(share, where=share > 0, out=np.zeros_like(share))
  entropy_LxM = -(share * logs).sum(-1) / math.log(max(counts.shape[-1], 2))
  return {'entropy_L': entropy_LxM.mean(-1), 'dead_L': (counts == 0).mean((1, 2))}
