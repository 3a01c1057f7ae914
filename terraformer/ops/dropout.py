"""Dropout with an explicit random key; without a key it is the identity."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, *, key: jax.Array | None, shared_axes: Sequence[int] = ()) -> jax.Array:
  """Returns `x` with entries zeroed with probability `rate` and the others scaled by 1 / (1 - rate).

  Args:
    x: array of any shape.
    rate: from 0 to 1; 1 zeroes everything.
    key: random key; None returns `x`.
    shared_axes: axes along which all entries share one random decision.
  """
  if key is None or rate == 0:
    return x
  if rate == 1:  # scaling would divide by 0, and its gradient would be NaN
    return jnp.zeros_like(x)
  shape = tuple(1 if axis in shared_axes else size for axis, size in enumerate(x.shape))
  keep = jax.random.bernoulli(key, 1 - rate, shape)
  return jnp.where(keep, x / (1 - rate), 0)
