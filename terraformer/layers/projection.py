"""The base class of projections: queries, keys and values before attention, and the output after it.

B batch, T time, D d_model, H heads, K head width.
"""

from typing import Any

import jax
from flax import nnx

QKV = tuple[jax.Array, jax.Array, jax.Array]


class Projection(nnx.Module):
  """A projection without caches; a subclass that needs caches overrides the methods that have one.

  A subclass sets `n_heads` and defines `__call__` and `project_output`. A cache is None or a pytree of arrays with a
  leading batch axis; only the subclass reads it.
  """

  n_heads: int

  def __call__(self, x_xD: jax.Array, segment_BxT: jax.Array | None = None) -> QKV:
    """Returns queries, keys and values of all positions, ...xHxK each. Segments of packed rows must not mix."""
    raise NotImplementedError

  def project_output(self, y_xHxK: jax.Array, segment_BxT: jax.Array | None = None) -> jax.Array:
    """Maps the heads' results at all positions to ...xD. Segments of packed rows must not mix."""
    raise NotImplementedError

  def init_cache(self, batch: int) -> Any:
    """Returns the cache of `step` before the first token."""
    return None

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array) -> tuple[QKV, Any]:
    """Computes all positions and the cache after the first `length_B` of them."""
    return self(x_BxTxD), None

  def step(self, x_BxD: jax.Array, cache: Any) -> tuple[QKV, Any]:
    """Returns queries, keys and values of one position, BxHxK each, and the new cache."""
    return self(x_BxD), None

  def query_step(self, x_BxD: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
    """Returns only the queries of one position, BxHxK, and the new cache; does not read `memory_layers`."""
    (q_BxHxK, _, _), cache = self.step(x_BxD, cache)
    return q_BxHxK, cache

  @property
  def memory_layers(self) -> tuple[nnx.Module | None, ...]:
    """The layers that only keys and values need; in cross-attention, decoding steps do not read them."""
    return ()

  def init_output_cache(self, batch: int) -> Any:
    """Returns the cache of `output_step` before the first token."""
    return None

  def output_prefill(self, y_BxTxHxK: jax.Array, length_B: jax.Array) -> tuple[jax.Array, Any]:
    """Computes the output at all positions, BxTxD, and the cache after the first `length_B` of them."""
    return self.project_output(y_BxTxHxK), None

  def output_step(self, y_BxHxK: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
    """Computes the output at one position, BxD, and the new cache."""
    return self.project_output(y_BxHxK), None


def split_heads(x_xD: jax.Array, n_heads: int) -> jax.Array:
  """Reshapes ...xD to ...xHxK; a head is a contiguous slice."""
  return x_xD.reshape(*x_xD.shape[:-1], n_heads, -1)


def join_heads(y_xHxK: jax.Array) -> jax.Array:
  """Reshapes ...xHxK to ...xD."""
  return y_xHxK.reshape(*y_xHxK.shape[:-2], -1)
