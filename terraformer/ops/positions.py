"""Where a token stands: sinusoids, and sequences that are written one behind the other.

B batch, S source time, T target time, D d_model, P positions.
"""

import jax
import jax.numpy as jnp
import numpy as np


def sinusoid_table(n_positions: int, d_model: int) -> np.ndarray:
  """Sinusoidal positions PxD: sines in the even columns, cosines in the odd ones (Vaswani et al., 2017)."""
  rates = np.exp(-np.arange(0, d_model, 2) * (np.log(1e4) / d_model))
  angles = np.arange(n_positions)[:, None] * rates
  table_PxD = np.zeros((n_positions, d_model), np.float32)
  table_PxD[:, 0::2] = np.sin(angles)
  table_PxD[:, 1::2] = np.cos(angles)[:, : d_model // 2]
  return table_PxD


def shift_right(tokens_BxT: jax.Array) -> jax.Array:
  """The tokens that a causal model reads to predict `tokens_BxT`: token 0, then all but the last."""
  return jnp.pad(tokens_BxT, ((0, 0), (1, 0)))[:, :-1]


def write_after(first_BxSxD: jax.Array, n_first_B: jax.Array, second_BxTxD: jax.Array) -> jax.Array:
  """Concatenates two right-padded sequences so that no padding lies between them.

  Args:
    first_BxSxD: of which the first `n_first_B` vectors count.
    n_first_B: from 0 to S.
    second_BxTxD: written from position `n_first_B` on.

  Returns:
    B x (S + T) x D, zero from position n_first + T on (where the authors' code leaves what padding was there).
  """
  s, t = first_BxSxD.shape[1], second_BxTxD.shape[1]
  position_P = jnp.arange(s + t)
  offset_BxP = position_P - n_first_B[:, None]
  source_BxP = jnp.where(offset_BxP < 0, position_P, s + jnp.minimum(offset_BxP, t - 1))
  both_BxPxD = jnp.concatenate([first_BxSxD, second_BxTxD], axis=1)
  written_BxPxD = jnp.take_along_axis(both_BxPxD, source_BxP[..., None], axis=1)
  return jnp.where((offset_BxP < t)[..., None], written_BxPxD, 0)


def read_after(both_BxPxD: jax.Array, n_first_B: jax.Array, length: int) -> jax.Array:
  """The second sequence that `write_after` wrote: `length` vectors from position `n_first_B` on."""
  position_BxT = n_first_B[:, None] + jnp.arange(length)
  return jnp.take_along_axis(both_BxPxD, position_BxT[..., None], axis=1)


def last_positions(x_BxTxD: jax.Array, length_B: jax.Array, width: int) -> jax.Array:
  """The `width` vectors before position `length_B`, zero where there are fewer; B x width x D."""
  position_BxC = length_B[:, None] + jnp.arange(-width, 0)
  taken_BxCxD = jnp.take_along_axis(x_BxTxD, jnp.maximum(position_BxC, 0)[..., None], axis=1)
  return jnp.where((position_BxC >= 0)[..., None], taken_BxCxD, 0)
