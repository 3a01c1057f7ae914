"""Attention with shared queries and keys (Reformer, Kitaev et al., 2020).

A query is nearest to itself, so its own key would take most of every softmax; therefore its own key is masked. A query
that sees no other key gets exactly its own value. The authors' code approximates this with a score of -1e5, where
float32 is coarse.

B batch, T queries, P keys, H heads, K head width, C queries per chunk.
"""

import math

import jax
import jax.numpy as jnp

from terraformer.ops.attention import MASK_VALUE, by_query_chunk
from terraformer.ops.dropout import dropout
from terraformer.ops.segments import in_same_segment


def unit_keys(q_xK: jax.Array) -> jax.Array:
  """Returns the keys of queries, ...xK: divided by their root mean square and by sqrt(K), so a key has length 1."""
  mean_square_x1 = jnp.mean(jnp.square(q_xK.astype(jnp.float32)), axis=-1, keepdims=True)
  return q_xK * (jax.lax.rsqrt(mean_square_x1 + 1e-6) / math.sqrt(q_xK.shape[-1])).astype(q_xK.dtype)


def attend_to_others(
  q_BxTxHxK: jax.Array,
  k_BxHxPxK: jax.Array,
  v_BxHxPxK: jax.Array,
  own_v_BxTxHxK: jax.Array,
  mask_BxHxTxP: jax.Array,
  *,
  rate: float = 0.0,
  key: jax.Array | None = None,
) -> jax.Array:
  """Returns softmax(q k) v over the keys that a query sees, or its own value if it sees none; softmax in float32.

  Args:
    q_BxTxHxK: queries.
    k_BxHxPxK, v_BxHxPxK: keys of length 1 and their values, with the heads before the positions.
    own_v_BxTxHxK: values of the queries' own positions.
    mask_BxHxTxP: True where a query sees a key, never its own (the axes of batch and heads may be 1).
    rate: dropout rate of the attention weights.
    key: random key for the dropout; None for no dropout.

  Returns:
    BxTxHxK.
  """
  score_BxHxTxP = jnp.einsum('BTHK,BHPK->BHTP', q_BxTxHxK, k_BxHxPxK, preferred_element_type=jnp.float32)
  weight_BxHxTxP = jax.nn.softmax(jnp.where(mask_BxHxTxP, score_BxHxTxP, MASK_VALUE))
  weight_BxHxTxP = dropout(weight_BxHxTxP, rate, key=key)
  y_BxTxHxK = jnp.einsum('BHTP,BHPK->BTHK', weight_BxHxTxP.astype(v_BxHxPxK.dtype), v_BxHxPxK)
  alone_BxTxH = ~mask_BxHxTxP.any(-1).swapaxes(1, 2)
  return jnp.where(alone_BxTxH[..., None], own_v_BxTxHxK, y_BxTxHxK)


def shared_qk_attention(
  q_BxTxHxK: jax.Array,
  v_BxTxHxK: jax.Array,
  real_BxT: jax.Array | None = None,
  segment_BxT: jax.Array | None = None,
  *,
  causal: bool,
  query_chunk: int = 0,
  rate: float = 0.0,
  key: jax.Array | None = None,
) -> jax.Array:
  """Returns attention with shared queries and keys to all positions that the mask allows.

  Args:
    q_BxTxHxK, v_BxTxHxK: queries, which are also the keys, and values.
    real_BxT: False at padding, which no position sees; None if there is no padding.
    segment_BxT: segments of packed rows, which do not see each other; else None.
    causal: whether a query sees only earlier positions.
    query_chunk: queries per chunk; the scores of one chunk are in memory at a time. 0 for one chunk.
    rate: dropout rate of the attention weights.
    key: random key for the dropout; None for no dropout.

  Returns:
    BxTxHxK.
  """
  k_BxHxTxK, v_BxHxTxK = unit_keys(q_BxTxHxK).swapaxes(1, 2), v_BxTxHxK.swapaxes(1, 2)
  position_T = jnp.arange(q_BxTxHxK.shape[1])

  def attend(q_BxCxHxK, position_C, chunk_key):
    before_CxT = position_T < position_C[:, None]
    mask_1x1xCxT = (before_CxT if causal else position_T != position_C[:, None])[None, None]
    mask = mask_1x1xCxT if real_BxT is None else mask_1x1xCxT & real_BxT[:, None, None]
    if segment_BxT is not None:
      mask &= in_same_segment(segment_BxT, segment_BxT, position_C)[:, None]
    # The last chunk may be padded; the results of its padding are dropped.
    own_v_BxCxHxK = jnp.take(v_BxTxHxK, position_C, axis=1, mode='clip')
    return attend_to_others(q_BxCxHxK, k_BxHxTxK, v_BxHxTxK, own_v_BxCxHxK, mask, rate=rate, key=chunk_key)

  return by_query_chunk(attend, q_BxTxHxK, query_chunk, key)
