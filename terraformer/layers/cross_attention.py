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
from terraformer.ops.attention import full_attention, one_query_attention
from terraformer.ops.kv_cache import columns, rows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CrossAttentionCache:
  """What decoding keeps.

  Attributes:
    k_GxKxS, v_GxSxK: keys and values of the other sequence.
    real_BxS: False at its padding.
    projection, output: what the projections keep of the positions seen.
  """

  k_GxKxS: jax.Array
  v_GxSxK: jax.Array
  real_BxS: jax.Array
  projection: Any
  output: Any


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
    """The cache before the first query."""
    batch = memory_BxSxD.shape[0]
    projection, output = self.projection.init_cache(batch), self.projection.init_output_cache(batch)
    _, k_BxSxHxK, v_BxSxHxK = self.projection(memory_BxSxD)
    return CrossAttentionCache(columns(k_BxSxHxK), rows(v_BxSxHxK), real_BxS, projection, output)

  def step(self, x_BxD: jax.Array, cache: CrossAttentionCache) -> tuple[jax.Array, CrossAttentionCache]:
    """One query."""
    q_BxHxK, projection = self.projection.query_step(x_BxD, cache.projection)
    y_BxHxK = one_query_attention(q_BxHxK, cache.k_GxKxS, cache.v_GxSxK, cache.real_BxS)
    # Without a real key the softmax has averaged padding.
    y_BxHxK = jnp.where(cache.real_BxS.any(1)[:, None, None], y_BxHxK, 0)
    y_BxD, output = self.projection.output_step(y_BxHxK, cache.output)
    return y_BxD, dataclasses.replace(cache, projection=projection, output=output)
