"""A function of tokens, a chunk of them at a time, so that what it computes in between is never alive for all.

B batch, T time, C tokens of a chunk, N chunks.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def map_chunks(function: Callable[[jax.Array, Any], Any], arrays_BxT: Any, chunk: int) -> Any:
  """`function` over chunks of the time axis, forwards and backwards: the backward pass computes a chunk again.

  Args:
    function: (index of the chunk, pytree of arrays BxCx...) -> pytree of arrays BxCx...; a token's result may depend on
      the tokens of its chunk alone. The last chunk is filled up with zeros.
    arrays_BxT: pytree of arrays BxTx....
    chunk: C; 0, or T and more, for one call of `function`.

  Returns:
    The results, BxTx... each.
  """
  time = jax.tree.leaves(arrays_BxT)[0].shape[1]
  if not 0 < chunk < time:
    return function(jnp.zeros((), jnp.int32), arrays_BxT)
  n_chunks = -(-time // chunk)

  def cut(x_BxT):
    room = ((0, 0), (0, n_chunks * chunk - time)) + ((0, 0),) * (x_BxT.ndim - 2)
    return jnp.pad(x_BxT, room).reshape(x_BxT.shape[0], n_chunks, chunk, *x_BxT.shape[2:]).swapaxes(0, 1)

  def join(y_NxBxC):
    y_BxNxC = y_NxBxC.swapaxes(0, 1)
    return y_BxNxC.reshape(y_BxNxC.shape[0], n_chunks * chunk, *y_BxNxC.shape[3:])[:, :time]

  chunks = jnp.arange(n_chunks), jax.tree.map(cut, arrays_BxT)
  return jax.tree.map(join, jax.lax.map(lambda one: jax.checkpoint(function)(*one), chunks))
