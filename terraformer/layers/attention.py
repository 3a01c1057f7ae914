"""Attention over all positions, causal or in both directions.

B batch, T queries, P keys, D d_model, H heads, K head width.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import BlockConfig
from terraformer.layers.projections import make_projection
from terraformer.ops.attention import by_query_chunk, dot_product_attention, visible_keys
from terraformer.ops.constrain import split_by_head


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionCache:
  """What attention keeps of the positions it has seen.

  Attributes:
    k_BxHxPxK, v_BxHxPxK: keys and values; position `length_B` and those after it do not count.
    length_B: positions filled, per example.
    projection, merge: what the projections keep.
  """

  k_BxHxPxK: jax.Array
  v_BxHxPxK: jax.Array
  length_B: jax.Array
  projection: Any
  merge: Any


class Attention(nnx.Module):
  """Multi-head dot-product attention of a sequence to itself."""

  def __init__(self, config: BlockConfig, causal: bool, *, key: jax.Array):
    self.projection = make_projection(config, key=key)
    self.config = config.attention
    self.head_shape = (config.n_heads, config.d_model // config.n_heads)
    self.causal = causal

  def _attend(self, q_BxTxHxK, k_BxTxHxK, v_BxTxHxK, real_BxT: jax.Array | None, key=None) -> jax.Array:
    k_BxHxTxK, v_BxHxTxK = k_BxTxHxK.swapaxes(1, 2), v_BxTxHxK.swapaxes(1, 2)

    def attend(q_BxCxHxK, position_C, chunk):
      visible_BxCxT = visible_keys(position_C, k_BxHxTxK.shape[2], real_BxT, self.causal)
      chunk_key = None if key is None else jax.random.fold_in(key, chunk)
      return dot_product_attention(
        q_BxCxHxK, k_BxHxTxK, v_BxHxTxK, visible_BxCxT, rate=self.config.dropout, key=chunk_key
      )

    return by_query_chunk(attend, q_BxTxHxK, self.config.query_chunk)

  def __call__(
    self, x_BxTxD: jax.Array, *, real_BxT: jax.Array | None = None, key: jax.Array | None = None, choices: None = None
  ) -> tuple[jax.Array, None]:
    """All positions.

    Args:
      x_BxTxD: input.
      real_BxT: False at padding, which no position sees; None where there is none.
      key: of dropout; None is evaluation.
      choices: full attention makes none.

    Returns:
      BxTxD, and None for the choices.
    """
    qkv = map(split_by_head, self.projection(x_BxTxD))
    return self.projection.merge(self._attend(*qkv, real_BxT, key)), None

  def init_cache(self, batch: int, capacity: int) -> AttentionCache:
    """An empty cache for `capacity` positions."""
    n_heads, head_width = self.head_shape
    empty = jnp.zeros((batch, n_heads, capacity, head_width))
    projection, merge = self.projection.init_cache(batch), self.projection.init_merge_cache(batch)
    return AttentionCache(empty, empty, jnp.zeros(batch, jnp.int32), projection, merge)

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array, capacity: int) -> tuple[jax.Array, AttentionCache]:
    """All positions at once, and the cache after the first `length_B` of them; `capacity` is at least T."""
    (q_BxTxHxK, k_BxTxHxK, v_BxTxHxK), projection = self.projection.prefill(x_BxTxD, length_B)
    room = ((0, 0), (0, 0), (0, capacity - x_BxTxD.shape[1]), (0, 0))
    k_BxHxPxK, v_BxHxPxK = (jnp.pad(kv.swapaxes(1, 2), room) for kv in (k_BxTxHxK, v_BxTxHxK))
    y_BxTxHxK = self._attend(q_BxTxHxK, k_BxTxHxK, v_BxTxHxK, None)
    y_BxTxD, merge = self.projection.merge_prefill(y_BxTxHxK, length_B)
    return y_BxTxD, AttentionCache(k_BxHxPxK, v_BxHxPxK, length_B, projection, merge)

  def step(self, x_BxD: jax.Array, cache: AttentionCache) -> tuple[jax.Array, AttentionCache]:
    """One position, which sees itself and the positions in the cache; nothing can be added to a full cache."""
    (q_BxHxK, k_BxHxK, v_BxHxK), projection = self.projection.step(x_BxD, cache.projection)
    batch_B = jnp.arange(x_BxD.shape[0])
    k_BxHxPxK = cache.k_BxHxPxK.at[batch_B, :, cache.length_B].set(k_BxHxK, mode='drop')
    v_BxHxPxK = cache.v_BxHxPxK.at[batch_B, :, cache.length_B].set(v_BxHxK, mode='drop')
    visible_Bx1xP = (jnp.arange(k_BxHxPxK.shape[2]) <= cache.length_B[:, None])[:, None]
    y_Bx1xHxK = dot_product_attention(q_BxHxK[:, None], k_BxHxPxK, v_BxHxPxK, visible_Bx1xP)
    y_BxD, merge = self.projection.merge_step(y_Bx1xHxK[:, 0], cache.merge)
    return y_BxD, AttentionCache(k_BxHxPxK, v_BxHxPxK, cache.length_B + 1, projection, merge)
