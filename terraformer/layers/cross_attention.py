"""Attention of a sequence to another one: of a decoder to its encoder's output.

B batch, T queries, S keys, D d_model, H heads, G heads of all examples, K head width.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import BlockConfig
from terraformer.layers.make import make_projection
from terraformer.layers.parameter import tell
from terraformer.ops.attention import by_query_chunk, dot_product_attention, one_query_attention, visible_keys


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CrossAttentionCache:
  """What decoding keeps.

  Attributes:
    k_GxKxS, v_GxSxK: keys and values of the other sequence.
    real_BxS: False at its padding.
    projection, merge: what the projections keep of the positions seen.
  """

  k_GxKxS: jax.Array
  v_GxSxK: jax.Array
  real_BxS: jax.Array
  projection: Any
  merge: Any


def _or_zeros(y_Bx: jax.Array, real_BxS: jax.Array | None) -> jax.Array:
  """Zeros where there is no key, and the softmax has averaged padding."""
  if real_BxS is None:
    return y_Bx
  return jnp.where(real_BxS.any(1).reshape(-1, *[1] * (y_Bx.ndim - 1)), y_Bx, 0)


class CrossAttention(nnx.Module):
  """Queries of one sequence, keys and values of another; every query sees every real key, and gets zeros without any.

  One projection serves both sequences, of which the compiler leaves out what is not used: the queries of the one, the
  keys and values of the other.
  """

  def __init__(self, config: BlockConfig, *, key: jax.Array):
    self.projection = make_projection(config, key=key)
    for layer in self.projection.of_memory:
      tell(layer, in_step=False)
    self.rate = config.attention.dropout
    self.query_chunk = config.attention.cross_chunk

  def _read(self, memory_BxSxD: jax.Array, segment_BxS: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    _, k_BxSxHxK, v_BxSxHxK = self.projection(memory_BxSxD, segment_BxS)
    return k_BxSxHxK.swapaxes(1, 2), v_BxSxHxK.swapaxes(1, 2)

  def _attend(self, q_BxTxHxK, k_BxHxSxK, v_BxHxSxK, real_BxS, segments, key=None) -> jax.Array:
    def attend(q_BxCxHxK, position_C, chunk):
      visible_BxCxS = visible_keys(position_C, k_BxHxSxK.shape[2], real_BxS, False, segments)
      chunk_key = None if key is None else jax.random.fold_in(key, chunk)
      y_BxCxHxK = dot_product_attention(q_BxCxHxK, k_BxHxSxK, v_BxHxSxK, visible_BxCxS, rate=self.rate, key=chunk_key)
      if segments is None:
        return y_BxCxHxK
      return jnp.where(visible_BxCxS.any(2)[..., None, None], y_BxCxHxK, 0)

    return _or_zeros(by_query_chunk(attend, q_BxTxHxK, self.query_chunk), real_BxS)

  def __call__(
    self,
    x_BxTxD: jax.Array,
    memory_BxSxD: jax.Array,
    real_BxS: jax.Array | None,
    *,
    segments: tuple[jax.Array, jax.Array] | None = None,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """All positions.

    Args:
      x_BxTxD: of the queries.
      memory_BxSxD: of the keys and values.
      real_BxS: False at padding, which no query sees; None where there is none.
      segments: of packed rows segment_BxT and segment_BxS, of queries and keys: a query sees the keys of its segment
        alone; else None.
      key: of dropout; None is evaluation.

    Returns:
      BxTxD.
    """
    segment_BxT, segment_BxS = segments or (None, None)
    q_BxTxHxK, _, _ = self.projection(x_BxTxD, segment_BxT)
    y_BxTxHxK = self._attend(q_BxTxHxK, *self._read(memory_BxSxD, segment_BxS), real_BxS, segments, key)
    return self.projection.merge(y_BxTxHxK, segment_BxT)

  def init_cache(self, memory_BxSxD: jax.Array, real_BxS: jax.Array) -> CrossAttentionCache:
    """The cache before the first query."""
    batch = memory_BxSxD.shape[0]
    projection, merge = self.projection.init_cache(batch), self.projection.init_merge_cache(batch)
    k_BxHxSxK, v_BxHxSxK = self._read(memory_BxSxD)
    n_keys, head_width = v_BxHxSxK.shape[2:]
    k_GxKxS = k_BxHxSxK.swapaxes(2, 3).reshape(-1, head_width, n_keys)
    return CrossAttentionCache(k_GxKxS, v_BxHxSxK.reshape(-1, n_keys, head_width), real_BxS, projection, merge)

  def step(self, x_BxD: jax.Array, cache: CrossAttentionCache) -> tuple[jax.Array, CrossAttentionCache]:
    """One query."""
    q_BxHxK, projection = self.projection.query_step(x_BxD, cache.projection)
    y_BxHxK = one_query_attention(q_BxHxK, cache.k_GxKxS, cache.v_GxSxK, cache.real_BxS)
    y_BxD, merge = self.projection.merge_step(_or_zeros(y_BxHxK, cache.real_BxS), cache.merge)
    return y_BxD, dataclasses.replace(cache, projection=projection, merge=merge)
