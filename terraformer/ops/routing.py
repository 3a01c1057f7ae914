"""One unit of each block: the noisy choice and the mask that carries its gradient (paper, section 3.1).

M blocks, N units a block.
"""

import jax
import jax.numpy as jnp

_MUCH = 2**17  # numbers; a decoding step has fewer


def first_of_largest(x_xN: jax.Array) -> jax.Array:
  """Index of the largest number of the last axis, int32; the first one on ties, as `argmax` has it.

  The maximum and its place are two passes that a CPU computes many numbers at a time, where the one of `argmax` goes
  number by number: six times as fast where there is much to go through. Of a row with a NaN the index is then the last.
  """
  if x_xN.size < _MUCH:
    return jnp.argmax(x_xN, axis=-1).astype(jnp.int32)
  n = x_xN.shape[-1]
  place_xN = jax.lax.broadcasted_iota(jnp.int32, x_xN.shape, x_xN.ndim - 1)
  largest_x1 = jax.lax.optimization_barrier(x_xN.max(-1, keepdims=True))
  return jnp.where(x_xN == largest_x1, place_xN, n - 1).min(-1)


def select_units(logits_xN: jax.Array, *, temperature: float = 0.0, key: jax.Array | None = None) -> jax.Array:
  """Index of the chosen unit of each block; the first one on ties.

  Args:
    logits_xN: the controller's output, units of a block on the last axis.
    temperature: scale of the Gumbel noise that is added to the log-softmax; the logits are not divided by it.
    key: of the noise; None chooses without noise.

  Returns:
    The leading axes, of the smallest unsigned type that holds N.
  """
  if key is not None and temperature > 0:
    uniform = jax.random.uniform(key, logits_xN.shape, logits_xN.dtype, minval=1e-6, maxval=1 - 1e-6)
    logits_xN = jax.nn.log_softmax(logits_xN) - jnp.log(-jnp.log(uniform)) * temperature
  n_units = logits_xN.shape[-1]
  return first_of_largest(logits_xN).astype(jnp.uint8 if n_units <= 256 else jnp.uint16)


def straight_through(units_xM: jax.Array, soft_xMxN: jax.Array, is_hard: jax.Array | bool = True) -> jax.Array:
  """The one-hot mask of the chosen units where `is_hard`, else the soft mask; with the gradient of that one in both."""
  hard_xMxN = jax.nn.one_hot(units_xM, soft_xMxN.shape[-1], dtype=soft_xMxN.dtype)
  return soft_xMxN + jax.lax.stop_gradient(jnp.where(is_hard, hard_xMxN - soft_xMxN, 0))
