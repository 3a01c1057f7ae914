"""Selects one unit per block, with noise, and makes a mask through which gradients flow (paper, section 3.1).

M blocks, N units per block.
"""

import jax
import jax.numpy as jnp

_ARGMAX_LIMIT = 2**17  # numbers; a decoding step has fewer


def first_of_largest(x_xN: jax.Array) -> jax.Array:
  """Returns the index of the largest number along the last axis, int32; the first one on ties, like `argmax`.

  For large arrays this takes two passes, one for the maximum and one for its index. A CPU vectorizes both, which is six
  times as fast as `argmax`, a single pass that is not vectorized. A row with a NaN then gives the last index.
  """
  if x_xN.size < _ARGMAX_LIMIT:
    return jnp.argmax(x_xN, axis=-1).astype(jnp.int32)
  n = x_xN.shape[-1]
  index_xN = jax.lax.broadcasted_iota(jnp.int32, x_xN.shape, x_xN.ndim - 1)
  largest_x1 = jax.lax.optimization_barrier(x_xN.max(-1, keepdims=True))
  return jnp.where(x_xN == largest_x1, index_xN, n - 1).min(-1)


def select_units(logits_xN: jax.Array, *, temperature: float = 0.0, key: jax.Array | None = None) -> jax.Array:
  """Returns the index of the selected unit of each block; the first one on ties.

  Args:
    logits_xN: output of the controller, with the units of a block on the last axis.
    temperature: scale of the Gumbel noise that is added to the log-softmax; the logits are not divided by it.
    key: random key for the noise; None for no noise.

  Returns:
    An array of the leading axes' shape, in the smallest unsigned type that holds N.
  """
  if key is not None and temperature > 0:
    uniform = jax.random.uniform(key, logits_xN.shape, logits_xN.dtype, minval=1e-6, maxval=1 - 1e-6)
    logits_xN = jax.nn.log_softmax(logits_xN) - jnp.log(-jnp.log(uniform)) * temperature
  n_units = logits_xN.shape[-1]
  return first_of_largest(logits_xN).astype(jnp.uint8 if n_units <= 256 else jnp.uint16)


def straight_through(units_xM: jax.Array, soft_xMxN: jax.Array, is_hard: jax.Array | bool = True) -> jax.Array:
  """Returns the one-hot mask of the selected units if `is_hard`, else the soft mask, whose gradient both have."""
  hard_xMxN = jax.nn.one_hot(units_xM, soft_xMxN.shape[-1], dtype=soft_xMxN.dtype)
  return soft_xMxN + jax.lax.stop_gradient(jnp.where(is_hard, hard_xMxN - soft_xMxN, 0))
