"""A function of tokens, a chunk of them at a time, so that what it computes in between is never alive for all.

B batch, T time, C tokens of a chunk, N chunks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


def in_chunks(function: Callable[[jax.Array, Any], Any], chunk: int, time: int) -> Callable[[Any], Any]:
  """`function` over chunks of the time axis, forwards and backwards: the backward pass computes a chunk again.

  Args:
    function: (index of the chunk, pytree of arrays BxCx...) -> pytree of arrays BxCx...; a token's result may depend on
      the tokens of its chunk alone. The last chunk is filled up with zeros.
    chunk: C; 0, or T and more, for one call of `function`.
    time: T.

  Returns:
    pytree of arrays BxTx... -> the results, BxTx... each.
  """
  if not 0 < chunk < time:
    return partial(function, jnp.zeros((), jnp.int32))
  n_chunks = -(-time // chunk)

  def cut(x_BxTx):
    room = ((0, 0), (0, n_chunks * chunk - time)) + ((0, 0),) * (x_BxTx.ndim - 2)
    return jnp.pad(x_BxTx, room).reshape(x_BxTx.shape[0], n_chunks, chunk, *x_BxTx.shape[2:]).swapaxes(0, 1)

  def join(y_NxBxCx):
    y_BxNxCx = y_NxBxCx.swapaxes(0, 1)
    return y_BxNxCx.reshape(y_BxNxCx.shape[0], n_chunks * chunk, *y_BxNxCx.shape[3:])[:, :time]

  def over_chunks(arrays_BxTx):
    chunks = jnp.arange(n_chunks), jax.tree.map(cut, arrays_BxTx)
    return jax.tree.map(join, jax.lax.map(lambda one: jax.checkpoint(function)(*one), chunks))

  return over_chunks
