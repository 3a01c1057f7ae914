"""Products of vectors with a matrix, arranged for speed when there are many vectors.

D width of the vectors, F rows of the matrix; in the multiplicative dense layer, S modules and W outputs per module.
"""

import jax
import jax.numpy as jnp

_FEW = 64


def has_many_vectors(x_xD: jax.Array) -> bool:
  """Returns whether there are more vectors ...xD than a decoding step has.

  With few vectors, the cost of a product is that of reading the matrix, which must then be read in its stored order.
  """
  return x_xD.size // x_xD.shape[-1] > _FEW


@jax.custom_vjp
def times_rows(x_xD: jax.Array, w_FxD: jax.Array) -> jax.Array:
  """Returns the dot products of every vector ...xD with every row: ...xF. F is much larger than D.

  In the product that gives the matrix's gradient, the gradient of the result (the largest array) is the second factor.
  Automatic differentiation makes it the first, and the compiler then transposes it in memory, along with the values
  from which it is computed.
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
  """Returns sum_d x[d] gating[s, d] projection[d, w] for every vector, ...xSxW (paper, section 3.2).

  For many vectors, gating and projection are first multiplied into one dense matrix. It is smaller than the vectors
  gated for each module, and the product with it takes no more operations.
  """
  n_vectors = x_xD.size // x_xD.shape[-1]
  if n_vectors > projection_DxW.shape[1]:
    matrix_DxSxW = gating_SxD.T[..., None] * projection_DxW[:, None]
    return jnp.einsum('...D,DSW->...SW', x_xD, matrix_DxSxW)
  return jnp.einsum('...SD,DW->...SW', x_xD[..., None, :] * gating_SxD, projection_DxW)
