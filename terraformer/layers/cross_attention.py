"""Cross-attention of a decoder to the encoder's output, called the memory.

B batch, T queries, S keys, D d_model, H heads, G = B H, K head width.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import BlockConfig
from terraformer.layers.make import make_projection
from terraformer.layers.parameter import add_facts
from terraformer.ops.attention import full_attention, one_query_attention
from terraformer.ops.kv_cache import columns, rows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CrossAttentionCache:
  """The cache of a cross-attention layer.

  Attributes:
    k_GxKxS, v_GxSxK: keys and values of the memory.
    real_BxS: False at the memory's padding.
    projection, output: caches of the projection.
  """

  k_GxKxS: jax.Array
  v_GxSxK: jax.Array
  real_BxS: jax.Array
  projection: Any
  output: Any


class CrossAttention(nnx.Module):
  """Attention with queries from one sequence and keys and values from another, the memory.

  Every query sees every real key, and gets zeros if there is none. One projection serves both sequences; the compiler
  removes the unused results, which are the memory's queries and the other sequence's keys and values.
  """

  def __init__(self, config: BlockConfig, *, key: jax.Array):
    self.projection = make_projection(config, key=key)
    for layer in self.projection.memory_layers:
      add_facts(layer, in_step=False)
    self.rate = config.attention.dropout
    self.query_chunk = config.attention.cross_chunk

  def __call__(
    self,
    x_BxTxD: jax.Array,
    memory_BxSxD: jax.Array,
    real_BxS: jax.Array | None,
    *,
    segments: tuple[jax.Array, jax.Array] | None = None,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Computes all positions.

    Args:
      x_BxTxD: input for the queries.
      memory_BxSxD: input for the keys and values.
      real_BxS: False at padding, which no query sees; None if there is no padding.
      segments: segments of the queries BxT and of the keys BxS in packed rows; a query sees only its own. Else None.
      key: random key for dropout; None for evaluation.

    Returns:
      BxTxD.
    """
    segment_BxT, segment_BxS = segments or (None, None)
    q_BxTxHxK, _, _ = self.projection(x_BxTxD, segment_BxT)
    _, k_BxSxHxK, v_BxSxHxK = self.projection(memory_BxSxD, segment_BxS)
    y_BxTxHxK = full_attention(
      q_BxTxHxK,
      k_BxSxHxK,
      v_BxSxHxK,
      real_BxS,
      causal=False,
      segments=segments,
      zero_if_no_key=True,
      query_chunk=self.query_chunk,
      rate=self.rate,
      key=key,
    )
    return self.projection.project_output(y_BxTxHxK, segment_BxT)

  def init_cache(self, memory_BxSxD: jax.Array, real_BxS: jax.Array) -> CrossAttentionCache:
    """Returns the cache before the first query."""
    batch = memory_BxSxD.shape[0]
    projection, output = self.projection.init_cache(batch), self.projection.init_output_cache(batch)
    _, k_BxSxHxK, v_BxSxHxK = self.projection(memory_BxSxD)
    return CrossAttentionCache(columns(k_BxSxHxK), rows(v_BxSxHxK), real_BxS, projection, output)

  def step(self, x_BxD: jax.Array, cache: CrossAttentionCache) -> tuple[jax.Array, CrossAttentionCache]:
    """Computes one position."""
    q_BxHxK, projection = self.projection.query_step(x_BxD, cache.projection)
    y_BxHxK = one_query_attention(q_BxHxK, cache.k_GxKxS, cache.v_GxSxK, cache.real_BxS)
    # Without a real key, the softmax averages padding.
    y_BxHxK = jnp.where(cache.real_BxS.any(1)[:, None, None], y_BxHxK, 0)
    y_BxD, output = self.projection.output_step(y_BxHxK, cache.output)
    return y_BxD, dataclasses.replace(cache, projection=projection, output=output)
