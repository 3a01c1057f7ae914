"""Scaled dot-product attention.

B batch, T queries, P keys, H heads, G = B H, K head width, C queries per chunk.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from terraformer.ops.chunks import in_chunks
from terraformer.ops.dropout import dropout
from terraformer.ops.keys import fold_key
from terraformer.ops.segments import in_same_segment

# Replaces a masked score. It is finite, so a query that sees no key gets the average of all values instead of NaN.
MASK_VALUE = -1e9


def dot_product_attention(
  q_BxTxHxK: jax.Array,
  k_BxHxPxK: jax.Array,
  v_BxHxPxK: jax.Array,
  mask_BxTxP: jax.Array | None,
  *,
  rate: float = 0.0,
  key: jax.Array | None = None,
) -> jax.Array:
  """Returns softmax(q k / sqrt(K)) v, with the softmax in float32.

  Args:
    q_BxTxHxK: queries.
    k_BxHxPxK, v_BxHxPxK: keys and values, with the heads before the positions.
    mask_BxTxP: True where a query sees a key (the batch axis may be 1); None if every query sees all keys.
    rate: dropout rate of the attention weights.
    key: random key for the dropout; None for no dropout.

  Returns:
    BxTxHxK.
  """
  score_BxHxTxP = jnp.einsum('BTHK,BHPK->BHTP', q_BxTxHxK, k_BxHxPxK).astype(jnp.float32)
  score_BxHxTxP /= math.sqrt(q_BxTxHxK.shape[-1])
  if mask_BxTxP is not None:
    score_BxHxTxP = jnp.where(mask_BxTxP[:, None], score_BxHxTxP, MASK_VALUE)
  weight_BxHxTxP = dropout(jax.nn.softmax(score_BxHxTxP), rate, key=key)
  return jnp.einsum('BHTP,BHPK->BTHK', weight_BxHxTxP.astype(v_BxHxPxK.dtype), v_BxHxPxK)


def one_query_attention(q_BxHxK: jax.Array, k_GxKxP: jax.Array, v_GxPxK: jax.Array, mask_BxP: jax.Array) -> jax.Array:
  """Returns `dot_product_attention` for one query per example, in the cache's layout.

  Args:
    q_BxHxK: queries.
    k_GxKxP, v_GxPxK: keys and values, each in the order in which its product reads it.
    mask_BxP: True where the query sees a key; it must see at least one.

  Returns:
    BxHxK.
  """
  batch, n_heads, head_width = q_BxHxK.shape
  q_Gx1xK = q_BxHxK.reshape(-1, 1, head_width) / math.sqrt(head_width)
  score_BxHxP = jax.lax.batch_matmul(q_Gx1xK, k_GxKxP.astype(jnp.float32)).reshape(batch, n_heads, -1)
  weight_BxHxP = jax.nn.softmax(jnp.where(mask_BxP[:, None], score_BxHxP, MASK_VALUE))
  return jax.lax.batch_matmul(weight_BxHxP.reshape(len(q_Gx1xK), 1, -1), v_GxPxK.astype(jnp.float32)).reshape(
    q_BxHxK.shape
  )


def full_attention(
  q_BxTxHxK: jax.Array,
  k_BxPxHxK: jax.Array,
  v_BxPxHxK: jax.Array,
  real_BxP: jax.Array | None,
  *,
  causal: bool,
  segments: tuple[jax.Array, jax.Array] | None = None,
  zero_if_no_key: bool = False,
  query_chunk: int = 0,
  rate: float = 0.0,
  key: jax.Array | None = None,
) -> jax.Array:
  """Returns attention to all keys that the mask allows; the scores of one chunk of queries are in memory at a time.

  Args:
    q_BxTxHxK: queries.
    k_BxPxHxK, v_BxPxHxK: keys and values.
    real_BxP: False at padding, which no query sees; None if there is no padding.
    causal: whether later keys are hidden from a query.
    segments: segments of the queries BxT and of the keys BxP in packed rows; a query sees only its own. Else None.
    zero_if_no_key: whether a query that sees no key gets zeros, instead of the average of all values.
    query_chunk: queries per chunk; 0 for one chunk.
    rate: dropout rate of the attention weights.
    key: random key for the dropout, folded with the index of each chunk; None for no dropout.

  Returns:
    BxTxHxK.
  """
  k_BxHxPxK, v_BxHxPxK = k_BxPxHxK.swapaxes(1, 2), v_BxPxHxK.swapaxes(1, 2)

  def attend(q_BxCxHxK, position_C, chunk_key):
    mask_BxCxP = attention_mask(position_C, k_BxHxPxK.shape[2], real_BxP, causal, segments)
    y_BxCxHxK = dot_product_attention(q_BxCxHxK, k_BxHxPxK, v_BxHxPxK, mask_BxCxP, rate=rate, key=chunk_key)
    if not zero_if_no_key or mask_BxCxP is None:
      return y_BxCxHxK
    return jnp.where(mask_BxCxP.any(2)[..., None, None], y_BxCxHxK, 0)

  return by_query_chunk(attend, q_BxTxHxK, query_chunk, key)


def attention_mask(
  position_T: jax.Array,
  n_keys: int,
  real_BxP: jax.Array | None,
  causal: bool,
  segments: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array | None:
  """Returns which keys the queries at `position_T` see, BxTxP (the batch axis may be 1); None if all see all.

  Padding is hidden; later keys are hidden if `causal`. In packed rows, a query sees only keys of its own segment;
  `segments` are those of all queries and of all keys.
  """
  mask_BxTxP = None if real_BxP is None else real_BxP[:, None, :]
  if causal:
    before_1xTxP = (position_T[:, None] >= jnp.arange(n_keys))[None]
    mask_BxTxP = before_1xTxP if mask_BxTxP is None else mask_BxTxP & before_1xTxP
  if segments is not None:
    same_BxTxP = in_same_segment(*segments, position_T)
    mask_BxTxP = same_BxTxP if mask_BxTxP is None else mask_BxTxP & same_BxTxP
  return mask_BxTxP


def by_query_chunk(
  attend: Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array],
  q_BxTxHxK: jax.Array,
  query_chunk: int,
  key: jax.Array | None = None,
) -> jax.Array:
  """Returns attention computed one chunk of queries at a time, forward and backward, so TxP scores never exist.

  Args:
    attend: (q_BxCxHxK, position_C, key of the chunk) -> BxCxHxK; the backward pass calls it again.
    q_BxTxHxK: queries.
    query_chunk: C; 0, or at least T, for one call of `attend`.
    key: random key for dropout, folded with the index of each chunk; None for no dropout.

  Returns:
    BxTxHxK.
  """

  def one(index, q_BxCxHxK):
    n_queries = q_BxCxHxK.shape[1]
    return attend(q_BxCxHxK, index * n_queries + jnp.arange(n_queries), fold_key(key, index))

  return in_chunks(one, query_chunk, q_BxTxHxK.shape[1])(q_BxTxHxK)
