"""Sublayers: each normalizes a residual stream and computes what is added to the streams.

Each has `__call__` for all positions, `init_cache`, `prefill` and `step`. `__call__` may compute in bfloat16, and
returns float32 like the streams; decoding computes in float32.

B batch, T time, S time of the memory, D d_model, W width of the recurrence.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import BlockConfig
from terraformer.layers.cross_attention import CrossAttention
from terraformer.layers.dense import Dense
from terraformer.layers.make import make_attention, make_feed_forward, make_norm
from terraformer.layers.parameter import add_facts
from terraformer.layers.sru import SRU
from terraformer.models.precision import cast_and_gather
from terraformer.ops.cache_slots import FilledSlots
from terraformer.ops.chunks import in_chunks
from terraformer.ops.dropout import dropout
from terraformer.ops.keys import fold_key, split_key

# Positions per chunk whose rows of a sparse feed-forward block are gathered at once.
_PREFILL_CHUNK = 64


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SequenceMasks:
  """The real positions and the segments of a sequence and of its memory.

  Attributes:
    real_BxT: False at padding of the sequence; None if nothing must be masked.
    memory_BxS: False at padding of the memory, which cross-attention reads; None if nothing must be masked.
    segment_BxT, memory_segment_BxS: the segments of both; None if rows are not packed.
  """

  real_BxT: jax.Array | None
  memory_BxS: jax.Array | None = None
  segment_BxT: jax.Array | None = None
  memory_segment_BxS: jax.Array | None = None


class AttentionSublayer(nnx.Module):
  """Computes dropout(attention(norm(x)))."""

  def __init__(self, config: BlockConfig, causal: bool, dtype: jnp.dtype, *, key: jax.Array):
    self.norm = make_norm(config.norm, config.d_model)
    self.attention = make_attention(config, causal, key=key)
    self.rate = config.dropout
    self.dtype = dtype

  def __call__(self, x_BxTxD: jax.Array, masks: SequenceMasks, memory: None, *, key=None, routing=None):
    """Computes all positions BxTxD; returns the buckets of LSH attention as routing, or None."""
    attention_key, dropout_key = split_key(key, 2)
    normed_BxTxD = self.norm(x_BxTxD).astype(self.dtype)
    attention = cast_and_gather(self.attention, self.dtype)
    y_BxTxD, routing = attention(
      normed_BxTxD, real_BxT=masks.real_BxT, segment_BxT=masks.segment_BxT, key=attention_key, routing=routing
    )
    return dropout(y_BxTxD.astype(jnp.float32), self.rate, key=dropout_key, shared_axes=(1,)), routing

  def init_cache(self, batch: int, capacity: int, memory: None, masks: SequenceMasks) -> Any:
    """Returns an empty cache."""
    return self.attention.init_cache(batch, capacity)

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array, capacity: int) -> tuple[jax.Array, Any]:
    """Computes all positions and the cache after the first `length_B` of them."""
    return self.attention.prefill(self.norm(x_BxTxD), length_B, capacity)

  def step(self, x_BxD: jax.Array, cache: Any, filled: FilledSlots) -> tuple[jax.Array, Any]:
    """Computes one position."""
    return self.attention.step(self.norm(x_BxD), cache, filled)


class CrossAttentionSublayer(nnx.Module):
  """Computes dropout(attention(norm(x), memory)).

  It has no `prefill`, because a decoder with cross-attention starts without tokens of its own.
  """

  def __init__(self, config: BlockConfig, dtype: jnp.dtype, *, key: jax.Array):
    self.norm = make_norm(config.norm, config.d_model)
    self.attention = CrossAttention(config, key=key)
    self.rate = config.dropout
    self.dtype = dtype

  def __call__(self, x_BxTxD: jax.Array, masks: SequenceMasks, memory_BxSxD: jax.Array, *, key=None, routing=None):
    """Computes all positions BxTxD; returns None as routing, since cross-attention makes no discrete choices."""
    attention_key, dropout_key = split_key(key, 2)
    normed_BxTxD, memory_BxSxD = self.norm(x_BxTxD).astype(self.dtype), memory_BxSxD.astype(self.dtype)
    attention = cast_and_gather(self.attention, self.dtype)
    segments = None if masks.segment_BxT is None else (masks.segment_BxT, masks.memory_segment_BxS)
    y_BxTxD = attention(normed_BxTxD, memory_BxSxD, masks.memory_BxS, segments=segments, key=attention_key)
    return dropout(y_BxTxD.astype(jnp.float32), self.rate, key=dropout_key, shared_axes=(1,)), None

  def init_cache(self, batch: int, capacity: int, memory_BxSxD: jax.Array, masks: SequenceMasks) -> Any:
    """Returns the cache with keys and values of the memory; `capacity` is unused."""
    return self.attention.init_cache(memory_BxSxD, masks.memory_BxS)

  def step(self, x_BxD: jax.Array, cache: Any, filled: FilledSlots) -> tuple[jax.Array, Any]:
    """Computes one position, which sees the whole memory; `filled` is unused."""
    return self.attention.step(self.norm(x_BxD), cache)


class RecurrentBranch(nnx.Module):
  """Normalization, dense layer to a small width, SRU, dense layer back (paper, section 4.3); computes in float32."""

  def __init__(self, config: BlockConfig, *, key: jax.Array):
    in_key, sru_key, out_key = jax.random.split(key, 3)
    width = config.recurrence.width
    self.norm = make_norm(config.norm, config.d_model, group='recurrence')
    self.contract = Dense(config.d_model, width, key=in_key)
    self.sru = SRU(config.recurrence, key=sru_key)
    self.expand = Dense(width, config.d_model, key=out_key, axes=(None, 'embed'))
    add_facts(self, group='recurrence')

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes all positions and the state after the first `length_B` of them."""
    h_BxTxW, state_BxW = self.sru.prefill(self.contract(self.norm(x_BxTxD)), length_B)
    return self.expand(h_BxTxW), state_BxW

  def __call__(self, x_BxTxD: jax.Array, segment_BxT: jax.Array | None = None) -> jax.Array:
    """Computes all positions, left to right, each segment of packed rows by itself."""
    return self.expand(self.sru(self.contract(self.norm(x_BxTxD)), segment_BxT))

  def step(self, x_BxD: jax.Array, state_BxW: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes one position."""
    h_BxW, state_BxW = self.sru.step(self.contract(self.norm(x_BxD)), state_BxW)
    return self.expand(h_BxW), state_BxW


class FeedForwardSublayer(nnx.Module):
  """Computes feed_forward(norm(x)) + recurrence(x), the feed-forward block in chunks of tokens."""

  def __init__(self, config: BlockConfig, dtype: jnp.dtype, *, key: jax.Array):
    ff_key, recurrence_key = jax.random.split(key)
    self.norm = make_norm(config.norm, config.d_model)
    self.feed_forward = make_feed_forward(config, key=ff_key)
    self.recurrence = None if config.recurrence is None else RecurrentBranch(config, key=recurrence_key)
    self.chunk = config.ff_chunk
    self.dtype = dtype

  def __call__(self, x_BxTxD: jax.Array, masks: SequenceMasks, memory: Any, *, key=None, routing=None):
    """Computes all positions BxTxD; returns the units or experts that a sparse block selected as routing, or None."""
    feed_forward = cast_and_gather(self.feed_forward, self.dtype)

    def one(index, x_and_routing):
      x_BxCxD, routing = x_and_routing
      y_BxCxD, routing = feed_forward(self.norm(x_BxCxD).astype(self.dtype), key=fold_key(key, index), routing=routing)
      return y_BxCxD.astype(jnp.float32), routing

    y_BxTxD, routing = in_chunks(one, self.chunk, x_BxTxD.shape[1])((x_BxTxD, routing))
    if self.recurrence is not None:
      y_BxTxD += cast_and_gather(self.recurrence, jnp.float32)(x_BxTxD, masks.segment_BxT)
    return y_BxTxD, routing

  def init_cache(self, batch: int, capacity: int, memory: Any, masks: SequenceMasks) -> jax.Array | None:
    """Returns the state of the recurrence, None without one; `capacity` is unused."""
    return None if self.recurrence is None else self.recurrence.sru.init_cache(batch)

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array, capacity: int) -> tuple[jax.Array, jax.Array | None]:
    """Computes all positions and the cache after the first `length_B` of them."""

    def read(_, x_BxCxD):
      y_NxD = self.feed_forward.step(self.norm(x_BxCxD).reshape(-1, x_BxCxD.shape[-1]))
      return y_NxD.reshape(x_BxCxD.shape)

    # As in a step, only the selected rows of a sparse block are read and computed.
    y_BxTxD = in_chunks(read, _PREFILL_CHUNK, x_BxTxD.shape[1])(x_BxTxD)
    if self.recurrence is None:
      return y_BxTxD, None
    h_BxTxD, cache = self.recurrence.prefill(x_BxTxD, length_B)
    return y_BxTxD + h_BxTxD, cache

  def step(self, x_BxD: jax.Array, cache: jax.Array | None, filled: FilledSlots) -> tuple[jax.Array, jax.Array | None]:
    """Computes one position; `filled` is unused, since a recurrence has no slots."""
    y_BxD = self.feed_forward.step(self.norm(x_BxD))
    if self.recurrence is None:
      return y_BxD, None
    h_BxD, cache = self.recurrence.step(x_BxD, cache)
    return y_BxD + h_BxD, cache
