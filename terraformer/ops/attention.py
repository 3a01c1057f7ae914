"""Scaled dot-product attention.

B batch, T queries, P keys, H heads, K head width.
"""

import math

import jax
import jax.numpy as jnp

# Added in place of a hidden score. Finite, so that a query that sees no key at all gives an average and not a NaN.
HIDDEN = -1e9


def dot_product_attention(
  q_BxTxHxK: jax.Array, k_BxHxPxK: jax.Array, v_BxHxPxK: jax.Array, visible_BxTxP: jax.Array | None
) -> jax.Array:
  """softmax(q k / sqrt(K)) v, with the softmax in float32.

  Args:
    q_BxTxHxK: queries.
    k_BxHxPxK, v_BxHxPxK: keys and values, heads first as the cache keeps them.
    visible_BxTxP: which keys a query sees (the batch axis may be 1); None for all.

  Returns:
    BxTxHxK.
  """
  score_BxHxTxP = jnp.einsum('BTHK,BHPK->BHTP', q_BxTxHxK, k_BxHxPxK).astype(jnp.float32)
  score_BxHxTxP /= math.sqrt(q_BxTxHxK.shape[-1])
  if visible_BxTxP is not None:
    score_BxHxTxP = jnp.where(visible_BxTxP[:, None], score_BxHxTxP, HIDDEN)
  weight_BxHxTxP = jax.nn.softmax(score_BxHxTxP).astype(v_BxHxPxK.dtype)
  return jnp.einsum('BHTP,BHPK->BTHK', weight_BxHxTxP, v_BxHxPxK)
