"""Sublayers: what is added to a residual stream, behind a normalisation of its own.

Each has `__call__` for all positions, `init_cache`, `prefill` and `step`. All positions may be computed in bfloat16;
what comes out is float32, as the streams are, and decoding is float32 throughout.

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

# Positions whose rows of a sparse feed-forward block are gathered at one time.
_PREFILL_CHUNK = 64


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SequenceMasks:
  """Which positions are real; None where all are. In packed rows also which belong to each other.

  Attributes:
    real_BxT: of the sequence itself.
    memory_BxS: of the sequence that cross-attention reads.
    segment_BxT, memory_segment_BxS: the segments of both; None where rows are not packed.
  """

  real_BxT: jax.Array | None
  memory_BxS: jax.Array | None = None
  segment_BxT: jax.Array | None = None
  memory_segment_BxS: jax.Array | None = None


class AttentionSublayer(nnx.Module):
  """x -> dropout(attention(norm(x)))."""

  def __init__(self, config: BlockConfig, causal: bool, dtype: jnp.dtype, *, key: jax.Array):
    self.norm = make_norm(config.norm, config.d_model)
    self.attention = make_attention(config, causal, key=key)
    self.rate = config.dropout
    self.dtype = dtype

  def __call__(self, x_BxTxD: jax.Array, masks: SequenceMasks, memory: None, *, key=None, routing=None):
    """All positions BxTxD, and the buckets where attention hashes."""
    attention_key, dropout_key = split_key(key, 2)
    normed_BxTxD = self.norm(x_BxTxD).astype(self.dtype)
    attention = cast_and_gather(self.attention, self.dtype)
    y_BxTxD, routing = attention(
      normed_BxTxD, real_BxT=masks.real_BxT, segment_BxT=masks.segment_BxT, key=attention_key, routing=routing
    )
    return dropout(y_BxTxD.astype(jnp.float32), self.rate, key=dropout_key, shared_axes=(1,)), routing

  def init_cache(self, batch: int, capacity: int, memory: None, masks: SequenceMasks) -> Any:
    """An empty cache."""
    return self.attention.init_cache(batch, capacity)

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array, capacity: int) -> tuple[jax.Array, Any]:
    """All positions, and the cache after the first `length_B`."""
    return self.attention.prefill(self.norm(x_BxTxD), length_B, capacity)

  def step(self, x_BxD: jax.Array, cache: Any, filled: FilledSlots) -> tuple[jax.Array, Any]:
    """One position."""
    return self.attention.step(self.norm(x_BxD), cache, filled)


class CrossAttentionSublayer(nnx.Module):
  """x -> dropout(attention(norm(x), memory)); it has no `prefill`, since a decoder starts with no tokens of its own."""

  def __init__(self, config: BlockConfig, dtype: jnp.dtype, *, key: jax.Array):
    self.norm = make_norm(config.norm, config.d_model)
    self.attention = CrossAttention(config, key=key)
    self.rate = config.dropout
    self.dtype = dtype

  def __call__(self, x_BxTxD: jax.Array, masks: SequenceMasks, memory_BxSxD: jax.Array, *, key=None, routing=None):
    """All positions BxTxD; cross-attention makes no discrete choices."""
    attention_key, dropout_key = split_key(key, 2)
    normed_BxTxD, memory_BxSxD = self.norm(x_BxTxD).astype(self.dtype), memory_BxSxD.astype(self.dtype)
    attention = cast_and_gather(self.attention, self.dtype)
    segments = None if masks.segment_BxT is None else (masks.segment_BxT, masks.memory_segment_BxS)
    y_BxTxD = attention(normed_BxTxD, memory_BxSxD, masks.memory_BxS, segments=segments, key=attention_key)
    return dropout(y_BxTxD.astype(jnp.float32), self.rate, key=dropout_key, shared_axes=(1,)), None

  def init_cache(self, batch: int, capacity: int, memory_BxSxD: jax.Array, masks: SequenceMasks) -> Any:
    """Keys and values of the memory, whatever the capacity."""
    return self.attention.init_cache(memory_BxSxD, masks.memory_BxS)

  def step(self, x_BxD: jax.Array, cache: Any, filled: FilledSlots) -> tuple[jax.Array, Any]:
    """One position; the memory is there in whole, whatever is filled of the decoder's own places."""
    return self.attention.step(self.norm(x_BxD), cache)


class RecurrentBranch(nnx.Module):
  """Dense to a small width, SRU, dense back, behind a normalisation of its own (paper, section 4.3); in float32."""

  def __init__(self, config: BlockConfig, *, key: jax.Array):
    in_key, sru_key, out_key = jax.random.split(key, 3)
    width = config.recurrence.width
    self.norm = make_norm(config.norm, config.d_model, group='recurrence')
    self.contract = Dense(config.d_model, width, key=in_key)
    self.sru = SRU(config.recurrence, key=sru_key)
    self.expand = Dense(width, config.d_model, key=out_key, axes=(None, 'embed'))
    add_facts(self, group='recurrence')

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """All positions, and the state after the first `length_B`."""
    h_BxTxW, state_BxW = self.sru.prefill(self.contract(self.norm(x_BxTxD)), length_B)
    return self.expand(h_BxTxW), state_BxW

  def __call__(self, x_BxTxD: jax.Array, segment_BxT: jax.Array | None = None) -> jax.Array:
    """All positions, left to right, of every segment for itself."""
    return self.expand(self.sru(self.contract(self.norm(x_BxTxD)), segment_BxT))

  def step(self, x_BxD: jax.Array, state_BxW: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One position."""
    h_BxW, state_BxW = self.sru.step(self.contract(self.norm(x_BxD)), state_BxW)
    return self.expand(h_BxW), state_BxW


class FeedForwardSublayer(nnx.Module):
  """x -> feed_forward(norm(x)) + recurrence(x); the former a chunk of tokens at a time."""

  def __init__(self, config: BlockConfig, dtype: jnp.dtype, *, key: jax.Array):
    ff_key, recurrence_key = jax.random.split(key)
    self.norm = make_norm(config.norm, config.d_model)
    self.feed_forward = make_feed_forward(config, key=ff_key)
    self.recurrence = None if config.recurrence is None else RecurrentBranch(config, key=recurrence_key)
    self.chunk = config.ff_chunk
    self.dtype = dtype

  def __call__(self, x_BxTxD: jax.Array, masks: SequenceMasks, memory: Any, *, key=None, routing=None):
    """All positions BxTxD, and the units or experts that a sparse block chose."""
    feed_forward = cast_and_gather(self.feed_forward, self.dtype)

    def one(index, x_and_choices):
      x_BxCxD, routing = x_and_choices
      y_BxCxD, routing = feed_forward(self.norm(x_BxCxD).astype(self.dtype), key=fold_key(key, index), routing=routing)
      return y_BxCxD.astype(jnp.float32), routing

    y_BxTxD, routing = in_chunks(one, self.chunk, x_BxTxD.shape[1])((x_BxTxD, routing))
    if self.recurrence is not None:
      y_BxTxD += cast_and_gather(self.recurrence, jnp.float32)(x_BxTxD, masks.segment_BxT)
    return y_BxTxD, routing

  def init_cache(self, batch: int, capacity: int, memory: Any, masks: SequenceMasks) -> jax.Array | None:
    """The recurrence's state, whatever the capacity."""
    return None if self.recurrence is None else self.recurrence.sru.init_cache(batch)

  def prefill(self, x_BxTxD: jax.Array, length_B: jax.Array, capacity: int) -> tuple[jax.Array, jax.Array | None]:
    """All positions, and the cache after the first `length_B`."""

    def read(_, x_BxCxD):
      y_NxD = self.feed_forward.step(self.norm(x_BxCxD).reshape(-1, x_BxCxD.shape[-1]))
      return y_NxD.reshape(x_BxCxD.shape)

    # As in a step: of a sparse block only the chosen rows are read, and nothing else of it is computed.
    y_BxTxD = in_chunks(read, _PREFILL_CHUNK, x_BxTxD.shape[1])(x_BxTxD)
    if self.recurrence is None:
      return y_BxTxD, None
    h_BxTxD, cache = self.recurrence.prefill(x_BxTxD, length_B)
    return y_BxTxD + h_BxTxD, cache

  def step(self, x_BxD: jax.Array, cache: jax.Array | None, filled: FilledSlots) -> tuple[jax.Array, jax.Array | None]:
    """One position; a recurrence has no places."""
    y_BxD = self.feed_forward.step(self.norm(x_BxD))
    if self.recurrence is None:
      return y_BxD, None
    h_BxD, cache = self.recurrence.step(x_BxD, cache)
    return y_BxD + h_BxD, cache
