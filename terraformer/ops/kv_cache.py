"""The KV cache of decoding: keys and values, written slot by slot.

B batch, T time, P slots, H heads, G = B H, K head width.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

ROWS, COLUMNS = 1, 2


def rows(x_BxTxHxK: jax.Array) -> jax.Array:
  """Returns the vectors of each head as rows, GxTxK."""
  batch, time, n_heads, head_width = x_BxTxHxK.shape
  return x_BxTxHxK.swapaxes(1, 2).reshape(batch * n_heads, time, head_width)


def columns(x_BxTxHxK: jax.Array) -> jax.Array:
  """Returns the vectors of each head as columns, GxKxT, as the product of one query with all keys reads them."""
  batch, time, n_heads, head_width = x_BxTxHxK.shape
  return x_BxTxHxK.transpose(0, 2, 3, 1).reshape(batch * n_heads, head_width, time)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
  """Keys and values at the slots of a cache.

  Batch and heads are one axis because the compiler would copy an array with a batch axis of 1 at every write.

  Attributes:
    k: keys, GxPxK as `rows` or GxKxP as `columns`.
    v_GxPxK: values.
    k_axis: axis of the slots in `k`, ROWS or COLUMNS.
    in_8_bits: whether each key and each value is rounded to 8 bits with its own scale; the arrays stay float32, the
      type in which XLA computes attention here.
  """

  k: jax.Array
  v_GxPxK: jax.Array
  k_axis: int = dataclasses.field(metadata={'static': True})
  in_8_bits: bool = dataclasses.field(default=False, metadata={'static': True})

  @classmethod
  def empty(cls, batch: int, n_heads: int, head_width: int, capacity: int, k_axis: int) -> 'KVCache':
    """Returns a cache of `capacity` slots, all zero."""
    v_GxPxK = jnp.zeros((batch * n_heads, capacity, head_width))
    return cls(v_GxPxK if k_axis == ROWS else v_GxPxK.swapaxes(1, 2), v_GxPxK, k_axis)

  @classmethod
  def from_positions(cls, k_BxTxHxK: jax.Array, v_BxTxHxK: jax.Array, capacity: int, k_axis: int) -> 'KVCache':
    """Returns a cache of `capacity` slots, the first T of which hold the given positions."""
    k = rows(k_BxTxHxK) if k_axis == ROWS else columns(k_BxTxHxK)
    return cls(k, rows(v_BxTxHxK), k_axis).extended(capacity - k_BxTxHxK.shape[1])

  @property
  def capacity(self) -> int:
    """Number of slots, P."""
    return self.v_GxPxK.shape[1]

  def append(self, k_BxHxK: jax.Array, v_BxHxK: jax.Array, slot: jax.Array) -> 'KVCache':
    """Returns the cache with one slot written. A `slot` past the end overwrites the last slot."""

    def write(x, new_BxHxK, axis):
      new_BxHxK = round_to_8_bits(new_BxHxK, -1) if self.in_8_bits else new_BxHxK
      new = jnp.expand_dims(new_BxHxK.reshape(-1, new_BxHxK.shape[2]), axis).astype(x.dtype)
      return jax.lax.dynamic_update_slice_in_dim(x, new, slot, axis)

    return self._replaced(write(self.k, k_BxHxK, self.k_axis), write(self.v_GxPxK, v_BxHxK, ROWS))

  def extended(self, more: int) -> 'KVCache':
    """Returns the cache with `more` additional slots at its end."""

    def pad(x, axis):
      return jnp.pad(x, [(0, more if at == axis else 0) for at in range(x.ndim)])

    return self._replaced(pad(self.k, self.k_axis), pad(self.v_GxPxK, ROWS))

  def astype(self, dtype: jax.typing.DTypeLike) -> 'KVCache':
    """Returns the cache in another type (for int8, see `in_8_bits`); attention still computes in float32."""
    if jnp.dtype(dtype) == jnp.int8:
      k, v_GxPxK = round_to_8_bits(self.k, 3 - self.k_axis), round_to_8_bits(self.v_GxPxK, 2)
      return dataclasses.replace(self, k=k, v_GxPxK=v_GxPxK, in_8_bits=True)
    return self._replaced(self.k.astype(dtype), self.v_GxPxK.astype(dtype))

  def _replaced(self, k: jax.Array, v_GxPxK: jax.Array) -> 'KVCache':
    return dataclasses.replace(self, k=k, v_GxPxK=v_GxPxK)


def round_to_8_bits(x: jax.Array, axis: int) -> jax.Array:
  """Rounds each number to the nearest multiple of 1/127 of the largest magnitude along an axis."""
  scale = jnp.abs(x).max(axis, keepdims=True) / 127
  return jnp.rint(x / jnp.where(scale > 0, scale, 1)) * scale


def extend_caches(caches: Any, more: int) -> Any:
  """Returns the pytree with `more` additional slots in every `KVCache`."""
  return _each(lambda cache: cache.extended(more), caches)


def cast_caches(caches: Any, dtype: jax.typing.DTypeLike) -> Any:
  """Returns the pytree with every `KVCache` cast to another type."""
  return _each(lambda cache: cache.astype(dtype), caches)


def _each(change: Callable[[KVCache], KVCache], caches: Any) -> Any:
  is_cache = lambda node: isinstance(node, KVCache)  # noqa: E731
  return jax.tree.map(lambda node: change(node) if is_cache(node) else node, caches, is_leaf=is_cache)
