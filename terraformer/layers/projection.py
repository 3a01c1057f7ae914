"""Queries, keys and values before attention, one vector of the heads after it: what all projections have in common.

B batch, T time, D d_model, H heads, K head width.
"""

from typing import Any

import jax
from flax import nnx

QKV = tuple[jax.Array, jax.Array, jax.Array]


class Projection(nnx.Module):
  """A projection that keeps nothing between tokens; one that does overrides the methods with a cache.

  A subclass sets `n_heads` and defines `__call__` and `project_output`. Both caches are its own business: None where it
  keeps nothing, else a pytree of arrays with a leading batch axis.
  """

  n_heads: int

  def __call__(self, x_xD: jax.Array, segment_BxT: jax.Array | None = None) -> QKV:
    """Queries, keys and values of all positions, ...xHxK each; no segment of a packed row may see another."""
    raise NotImplementedError

  def project_output(self, y_xHxK: jax.Array, segment_BxT: jax.Array | None = None) -> jax.Array:
    """The heads' results of all positions to ...xD, segments as above."""
    raise NotImplementedError

  def init_cache(self, batch: int) -> Any:
    """What `step` keeps before the first token."""
    return None

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array) -> tuple[QKV, Any]:
    """All positions, and the cache after the first `length_B` of them."""
    return self(x_BxTxD), None

  def step(self, x_BxD: jax.Array, cache: Any) -> tuple[QKV, Any]:
    """One position: queries, keys and values, BxHxK each, and the new cache."""
    return self(x_BxD), None

  def query_step(self, x_BxD: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
    """One position's queries alone, BxHxK, and the new cache; it does not read `of_memory`."""
    (q_BxHxK, _, _), cache = self.step(x_BxD, cache)
    return q_BxHxK, cache

  @property
  def of_memory(self) -> tuple[nnx.Module | None, ...]:
    """The layers that keys and values alone need: those that cross-attention is done with once it has read them."""
    return ()

  def init_output_cache(self, batch: int) -> Any:
    """What `output_step` keeps before the first token."""
    return None

  def output_prefill(self, y_BxTxHxK: jax.Array, length_B: jax.Array) -> tuple[jax.Array, Any]:
    """All positions, BxTxD, and the cache after the first `length_B` of them."""
    return self.project_output(y_BxTxHxK), None

  def output_step(self, y_BxHxK: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
    """One position, BxD, and the new cache."""
    return self.project_output(y_BxHxK), None


def split_heads(x_xD: jax.Array, n_heads: int) -> jax.Array:
  """...xD to ...xHxK; a head is a contiguous slice."""
  return x_xD.reshape(*x_xD.shape[:-1], n_heads, -1)


def join_heads(y_xHxK: jax.Array) -> jax.Array:
  """...xHxK to ...xD."""
  return y_xHxK.reshape(*y_xHxK.shape[:-2], -1)
