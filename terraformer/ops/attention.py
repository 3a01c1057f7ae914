"""Scaled dot-product attention.

B batch, T queries, P keys, H heads, G heads of all examples, K head width, C queries of a chunk.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from terraformer.ops.chunks import in_chunks
from terraformer.ops.dropout import dropout
from terraformer.ops.keys import fold_key
from terraformer.ops.segments import in_same_segment

# Added in place of a hidden score. Finite, so that a query that sees no key at all gives an average and not a NaN.
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
  """softmax(q k / sqrt(K)) v, with the softmax in float32.

  Args:
    q_BxTxHxK: queries.
    k_BxHxPxK, v_BxHxPxK: keys and values, heads first as the cache keeps them.
    mask_BxTxP: which keys a query sees (the batch axis may be 1); None for all.
    rate: of the dropout of attention weights.
    key: of that dropout; None for none.

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
  """The same for one query of each example, with keys and values as decoding keeps them.

  Args:
    q_BxHxK: queries.
    k_GxKxP, v_GxPxK: keys and values, G = B H; each in the order in which its product reads it.
    mask_BxP: which keys count; at least one does.

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
  blind_zeros: bool = False,
  query_chunk: int = 0,
  rate: float = 0.0,
  key: jax.Array | None = None,
) -> jax.Array:
  """Every query sees every key that it may see, with the scores of a chunk of queries alive at one time.

  Args:
    q_BxTxHxK: queries.
    k_BxPxHxK, v_BxPxHxK: keys and values.
    real_BxP: False at padding, which no query sees; None where there is none.
    causal: whether a query sees no key that follows it.
    segments: of packed rows, of queries BxT and of keys BxP, which do not see each other; else None.
    blind_zeros: whether a query that sees no key gets zeros; else the average of all values.
    query_chunk: queries of a chunk; 0 for all of them.
    rate: of the dropout of attention weights.
    key: of that dropout, from which every chunk gets its own; None for none.

  Returns:
    BxTxHxK.
  """
  k_BxHxPxK, v_BxHxPxK = k_BxPxHxK.swapaxes(1, 2), v_BxPxHxK.swapaxes(1, 2)

  def attend(q_BxCxHxK, position_C, chunk_key):
    mask_BxCxP = attention_mask(position_C, k_BxHxPxK.shape[2], real_BxP, causal, segments)
    y_BxCxHxK = dot_product_attention(q_BxCxHxK, k_BxHxPxK, v_BxHxPxK, mask_BxCxP, rate=rate, key=chunk_key)
    if not blind_zeros or mask_BxCxP is None:
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
  """Which keys the queries at `position_T` see, BxTxP (the batch axis may be 1): real ones, and none that follow.

  In packed rows those of their segment alone, with the segments of all queries and of all keys.
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
  """Attention a chunk of queries at a time, forwards and backwards, so that TxP scores are never alive.

  Args:
    attend: (q_BxCxHxK, position_C, key of the chunk) -> BxCxHxK; it is computed again in the backward pass.
    q_BxTxHxK: queries.
    query_chunk: C; 0 or T and more for one call of `attend`.
    key: of dropout, from which every chunk gets its own; None for none.

  Returns:
    BxTxHxK.
  """

  def one(index, q_BxCxHxK):
    n_queries = q_BxCxHxK.shape[1]
    return attend(q_BxCxHxK, index * n_queries + jnp.arange(n_queries), fold_key(key, index))

  return in_chunks(one, query_chunk, q_BxTxHxK.shape[1])(q_BxTxHxK)
