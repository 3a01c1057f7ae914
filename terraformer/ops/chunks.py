"""Applies a function to tokens one chunk at a time, so its intermediate results never exist for all tokens at once.

B batch, T time, C tokens per chunk, N chunks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


def in_chunks(function: Callable[[jax.Array, Any], Any], chunk: int, time: int) -> Callable[[Any], Any]:
  """Returns `function` applied to chunks of the time axis; the backward pass recomputes one chunk at a time.

  Args:
    function: (index of the chunk, pytree of arrays BxCx...) -> pytree of arrays BxCx...; a token's result may depend
      only on the tokens of its chunk. The last chunk is padded with zeros.
    chunk: C; 0, or at least T, for one call of `function`.
    time: T.

  Returns:
    A function: pytree of arrays BxTx... -> pytree of results BxTx...
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
