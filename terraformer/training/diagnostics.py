"""What a run shows of the inside of its model.

L layers, M blocks, N units a block.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.layers.parameter import ModelFacts
from terraformer.models.parameters import Params, flatten


def gradient_squares(gradients: Params, facts: ModelFacts) -> dict[str, jax.Array]:
  """Squared norms of the parts of the model: a number each, or a vector L for the layers of a stack."""
  squares: dict[str, list[jax.Array]] = {}
  for path, gradient in flatten(gradients).items():
    part = path.split('.')[0]
    is_layers = facts[path].loop == 'blocks'
    axes = tuple(range(1 if is_layers else 0, gradient.ndim))
    squares.setdefault(part, []).append(jnp.square(gradient.astype(jnp.float32)).sum(axes))
  return {part: sum(values) for part, values in squares.items()}


def unit_usage(counts_LxMxN: np.ndarray) -> dict[str, np.ndarray]:
  """How a controller spreads its choices.

  Args:
    counts_LxMxN: how often each unit was picked.

  Returns:
    `entropy_L`, of a block's choices as a share of log N, the mean over blocks: 1 where all units are used alike, 0
    where it is always the same; `dead_L`, the share of units that were never picked.
  """
  counts = np.asarray(counts_LxMxN, np.float64)
  share = counts / np.maximum(counts.sum(-1, keepdims=True), 1)
  logs = np.log(share, where=share > 0, out=np.zeros_like(share))
  entropy_LxM = -(share * logs).sum(-1) / math.log(max(counts.shape[-1], 2))
  return {'entropy_L': entropy_LxM.mean(-1), 'dead_L': (counts == 0).mean((1, 2))}
