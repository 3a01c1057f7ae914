"""Dropout with an explicit key; without one it is the identity."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, *, key: jax.Array | None, shared_axes: Sequence[int] = ()) -> jax.Array:
  """Zeroes entries of `x` with probability `rate` and scales the others by 1 / (1 - rate).

  Args:
    x: any shape.
    rate: from 0 to 1, with which nothing is left.
    key: of the draw; None returns `x`.
    shared_axes: axes along which one draw is shared.
  """
  if key is None or rate == 0:
    return x
  if rate == 1:  # nothing is left to be scaled, and the gradient of 0 / 0 would be nan
    return jnp.zeros_like(x)
  shape = tuple(1 if axis in shared_axes else size for axis, size in enumerate(x.shape))
  keep = jax.random.bernoulli(key, 1 - rate, shape)
  return jnp.where(keep, x / (1 - rate), 0)
