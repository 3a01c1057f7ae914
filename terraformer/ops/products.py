"""Products of vectors with a matrix, in the order in which many of them are computed fastest.

D width of the vectors, F rows of the matrix; of the multiplicative dense layer S modules, W outputs of each.
"""

import jax
import jax.numpy as jnp

_FEW = 64


def are_many(x_xD: jax.Array) -> bool:
  """Whether there are more vectors ...xD than a decoding step has. Of few, a product costs what it costs to read the
  matrix, which must then be read as it lies."""
  return x_xD.size // x_xD.shape[-1] > _FEW


@jax.custom_vjp
def times_rows(x_xD: jax.Array, w_FxD: jax.Array) -> jax.Array:
  """x . w of every vector ...xD and every row: ...xF, where F is far larger than D.

  The matrix's gradient is a product in which the gradient of the result, the largest array, is the second factor. As
  the first one, which plain differentiation makes of it, it would be written anew across memory, together with all that
  is computed on the way to it.
  """
  return jnp.einsum('...D,FD->...F', x_xD, w_FxD)


def _forward(x_xD: jax.Array, w_FxD: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return times_rows(x_xD, w_FxD), (x_xD, w_FxD)


def _backward(kept: tuple[jax.Array, jax.Array], g_xF: jax.Array) -> tuple[jax.Array, jax.Array]:
  x_xD, w_FxD = kept
  leading = tuple(range(x_xD.ndim - 1))
  g_DxF = jax.lax.dot_general(x_xD, g_xF, ((leading, leading), ((), ())))
  return jnp.einsum('...F,FD->...D', g_xF, w_FxD), g_DxF.T


times_rows.defvjp(_forward, _backward)


def multiplicative(x_xD: jax.Array, gating_SxD: jax.Array, projection_DxW: jax.Array) -> jax.Array:
  """sum_d x[d] gating[s, d] projection[d, w] of every vector, ...xSxW (paper, section 3.2).

  Of many vectors the two factors are multiplied first, into the matrix for which they stand: that has fewer numbers
  than a vector gated for each module, and takes as many operations from there on.
  """
  n_vectors = x_xD.size // x_xD.shape[-1]
  if n_vectors > projection_DxW.shape[1]:
    matrix_DxSxW = gating_SxD.T[..., None] * projection_DxW[:, None]
    return jnp.einsum('...D,DSW->...SW', x_xD, matrix_DxSxW)
  return jnp.einsum('...SD,DW->...SW', x_xD[..., None, :] * gating_SxD, projection_DxW)
