"""One unit of each block: the noisy choice and the mask that carries its gradient (paper, section 3.1).

M blocks, N units a block.
"""

import jax
import jax.numpy as jnp


def choose_units(logits_xMxN: jax.Array, *, temperature: float = 0.0, key: jax.Array | None = None) -> jax.Array:
  """Index of the chosen unit of each block; the first one on ties.

  Args:
    logits_xMxN: the controller's output, any leading axes.
    temperature: scale of the Gumbel noise that is added to the log-softmax; the logits are not divided by it.
    key: of the noise; None chooses without noise.

  Returns:
    units_xM, of the smallest unsigned type that holds N.
  """
  if key is not None and temperature > 0:
    uniform = jax.random.uniform(key, logits_xMxN.shape, logits_xMxN.dtype, minval=1e-6, maxval=1 - 1e-6)
    logits_xMxN = jax.nn.log_softmax(logits_xMxN) - jnp.log(-jnp.log(uniform)) * temperature
  n_units = logits_xMxN.shape[-1]
  return jnp.argmax(logits_xMxN, axis=-1).astype(jnp.uint8 if n_units <= 256 else jnp.uint16)


def straight_through(units_xM: jax.Array, soft_xMxN: jax.Array) -> jax.Array:
  """The one-hot mask of the chosen units, with the gradient of the soft mask."""
  hard_xMxN = jax.nn.one_hot(units_xM, soft_xMxN.shape[-1], dtype=soft_xMxN.dtype)
  return soft_xMxN + jax.lax.stop_gradient(hard_xMxN - soft_xMxN)
