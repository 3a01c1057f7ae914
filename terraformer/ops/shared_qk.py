"""Attention whose keys are its queries, and to oneself only as a last resort (Reformer, Kitaev et al., 2020).

A query is nearest to itself, so its own key would take most of every softmax: it is left out. A query that sees no
other key gets its own value, exactly: the authors' code comes near it with a score of -1e5, where float32 is coarse.

B batch, T queries, P keys, H heads, K head width, C queries of a chunk.
"""

import math

import jax
import jax.numpy as jnp

from terraformer.ops.attention import MASK_VALUE, by_query_chunk
from terraformer.ops.dropout import dropout
from terraformer.ops.segments import in_same_segment


def unit_keys(q_xK: jax.Array) -> jax.Array:
  """Queries as keys, ...xK: divided by their root mean square and by sqrt(K), so that a key has length 1."""
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
  """softmax(q k) v over the keys that a query sees; its own value where it sees none. The softmax is in float32.

  Args:
    q_BxTxHxK: queries.
    k_BxHxPxK, v_BxHxPxK: keys of length 1 and their values, heads first as the cache keeps them.
    own_v_BxTxHxK: the queries' own values.
    mask_BxHxTxP: which keys a query sees, itself never (the axes of batch and heads may be 1).
    rate: of the dropout of attention weights.
    key: of that dropout; None for none.

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
  """Every query sees every key that it may see.

  Args:
    q_BxTxHxK, v_BxTxHxK: queries, which are the keys as well, and values.
    real_BxT: False at padding, which no position sees; None where there is none.
    segment_BxT: of packed rows, whose segments do not see each other; else None.
    causal: whether a query sees only what stands before it.
    query_chunk: queries whose scores are alive at one time; 0 for all of them.
    rate: of the dropout of attention weights.
    key: of that dropout; None for none.

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
    # The last chunk of queries is padded: what stands there is dropped.
    own_v_BxCxHxK = jnp.take(v_BxTxHxK, position_C, axis=1, mode='clip')
    return attend_to_others(q_BxCxHxK, k_BxHxTxK, v_BxHxTxK, own_v_BxCxHxK, mask, rate=rate, key=chunk_key)

  return by_query_chunk(attend, q_BxTxHxK, query_chunk, key)
