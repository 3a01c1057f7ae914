"""Mechanisms of a user's own, in a module of which no file of the package knows.

`SOURCE` is the module's text: an attention of a sliding window, a feed-forward block whose controller picks two units
of each block, and a source of texts. `GIN` makes a small model and its data of them.
"""

NAME = 'mine_from_outside'
SOURCE = '''
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from terraformer.config import AttentionConfig, DataSource, FeedForwardConfig
from terraformer.config.base import divides
from terraformer.data.source import Source
from terraformer.layers.attention import Attention
from terraformer.layers.parameter import glorot_uniform, parameter, small_normal
from terraformer.ops.attention import dot_product_attention, one_query_attention
from terraformer.ops.dropout import dropout


class Window(Attention):
  """Each position sees the positions that are fewer than `window` away from it."""

  def _attend(self, q_BxTxHxK, k_BxTxHxK, v_BxTxHxK, real_BxT=None, segment_BxT=None, key=None):
    at_T = jnp.arange(q_BxTxHxK.shape[1])
    distance_TxT = at_T[:, None] - at_T
    mask_BxTxT = (jnp.abs(distance_TxT) < self.config.window)[None]
    if self.causal:
      mask_BxTxT &= distance_TxT >= 0
    if real_BxT is not None:
      mask_BxTxT &= real_BxT[:, None]
    if segment_BxT is not None:
      mask_BxTxT &= segment_BxT[:, :, None] == segment_BxT[:, None]
    k_BxHxTxK, v_BxHxTxK = k_BxTxHxK.swapaxes(1, 2), v_BxTxHxK.swapaxes(1, 2)
    return dot_product_attention(q_BxTxHxK, k_BxHxTxK, v_BxHxTxK, mask_BxTxT, rate=self.config.dropout, key=key)

  def read(self, q_BxHxK, cache, filled):
    slot_P = jnp.arange(cache.kv.capacity)
    length_Bx1 = filled.prompt_B[:, None]
    position_BxP = jnp.where(slot_P < filled.first_new, slot_P, length_Bx1 + slot_P - filled.first_new)
    now_Bx1 = length_Bx1 + filled.next_slot - filled.first_new - 1
    mask_BxP = filled.mask(cache.kv.capacity) & (now_Bx1 - position_BxP < self.config.window)
    return one_query_attention(q_BxHxK, cache.kv.k, cache.kv.v_GxPxK, mask_BxP)


@dataclasses.dataclass(frozen=True)
class WindowConfig(AttentionConfig):
  """A sliding window of `window` positions."""

  made_by: ClassVar = Window

  window: int = 4
  dropout: float = 0.0

  needs_padding_mask: ClassVar = False
  reads_whole_cache: ClassVar = True

  def check(self):
    self._at_least(1, 'window')
    self._probability('dropout')

  def can_grow(self, n_slots):
    return True

  def keys_seen(self, context):
    return min(context, self.window)


class TopTwoFF(nnx.Module):
  """Two units of each block, the likeliest of its controller's softmax, scaled by it."""

  def __init__(self, config, d_model, rate, *, key):
    self.rate = rate
    m, n, d = config.d_ff // config.block_size, config.block_size, d_model
    keys = jax.random.split(key, 4)
    axes = ('ff_block', 'ff_unit', 'embed')
    self.controller_DxMxN = parameter(
      glorot_uniform(keys[0], (d, m, n), d, config.d_ff), ('embed', 'ff_block', 'ff_unit'), group='controller'
    )
    self.w1_MxNxD = parameter(glorot_uniform(keys[1], (m, n, d), d, config.d_ff), axes, row_axis=-2, rows=2)
    self.w2_MxNxD = parameter(glorot_uniform(keys[2], (m, n, d), config.d_ff, d), axes, row_axis=-2, rows=2)
    self.bias_D = parameter(small_normal(keys[3], (d,)), ('embed',), decays=False)

  def _gate(self, x_xD):
    return jax.nn.softmax(jnp.einsum('...D,DMN->...MN', x_xD, self.controller_DxMxN[...]).astype(jnp.float32))

  def __call__(self, x_BxTxD, *, key=None, routing=None):
    gate_BxTxMxN = self._gate(x_BxTxD)
    units_BxTxMx2 = jax.lax.top_k(gate_BxTxMxN, 2)[1] if routing is None else routing
    mask_BxTxMxN = jax.nn.one_hot(units_BxTxMx2, gate_BxTxMxN.shape[-1]).sum(-2)
    hidden_BxTxMxN = jax.nn.relu(jnp.einsum('BTD,MND->BTMN', x_BxTxD, self.w1_MxNxD[...])) * gate_BxTxMxN * mask_BxTxMxN
    y_BxTxD = jnp.einsum('BTMN,MND->BTD', hidden_BxTxMxN, self.w2_MxNxD[...]) + self.bias_D[...]
    return dropout(y_BxTxD, self.rate, key=key, shared_axes=(0, 1)), units_BxTxMx2

  def step(self, x_BxD):
    gate_BxMx2, units_BxMx2 = jax.lax.top_k(self._gate(x_BxD), 2)
    block_Mx1 = jnp.arange(units_BxMx2.shape[1])[:, None]
    rows1_BxMx2xD = self.w1_MxNxD[...][block_Mx1, units_BxMx2]
    rows2_BxMx2xD = self.w2_MxNxD[...][block_Mx1, units_BxMx2]
    hidden_BxMx2 = jax.nn.relu(jnp.einsum('BD,BMUD->BMU', x_BxD, rows1_BxMx2xD)) * gate_BxMx2
    return jnp.einsum('BMU,BMUD->BD', hidden_BxMx2, rows2_BxMx2xD) + self.bias_D[...]


@dataclasses.dataclass(frozen=True)
class TopTwoFFConfig(FeedForwardConfig):
  """Two of `block_size` units of each block."""

  made_by: ClassVar = TopTwoFF

  d_ff: int = 64
  block_size: int = 8

  def check(self):
    self._sizes('d_ff', 'block_size')
    self._at_least(2, 'block_size')
    divides('TopTwoFFConfig.d_ff', self.d_ff, 'block_size', self.block_size)


class Counting(Source):
  """Numbers to count on from: `3 4 5` to `6 7`."""

  def read(self, split, part, parts):
    for index in range(part, self.config.examples if split == 'train' else 8, parts):
      first = int(np.random.default_rng((len(split), index)).integers(0, 90))
      numbers = [str(first + i) for i in range(5)]
      yield {'inputs': ' '.join(numbers[:3]), 'targets': ' '.join(numbers[3:])}


@dataclasses.dataclass(frozen=True)
class CountingConfig(DataSource):
  """Of so many `examples` in training."""

  made_by: ClassVar = Counting
  task: ClassVar[str] = 'counting'

  examples: int = 120

  def check(self):
    self._at_least(1, 'examples')
'''

GIN = f"""
from __gin__ import dynamic_registration
import {NAME}
from terraformer import config

config.RunConfig.data = @config.DataConfig()
config.DataConfig.source = @{NAME}.CountingConfig()
config.DataConfig.inputs_length = 16
config.DataConfig.targets_length = 12
config.TokenizerConfig.size = 300
config.TokenizerConfig.sentinels = 0

config.RunConfig.model = @config.TerraformerConfig()
config.TerraformerConfig.vocab_size = 300
config.TerraformerConfig.max_length = 32
config.TerraformerConfig.n_encoder_layers = 1
config.TerraformerConfig.n_decoder_layers = 2
config.TerraformerConfig.unroll = 2
config.BlockConfig.d_model = 32
config.BlockConfig.n_heads = 2
config.BlockConfig.dropout = 0.0
config.BlockConfig.projection = @config.DenseProjectionConfig()
config.BlockConfig.attention = @{NAME}.WindowConfig()
config.BlockConfig.feed_forward = @{NAME}.TopTwoFFConfig()
config.SRUConfig.width = 8
config.TerraformerConfig.output = @config.DenseOutputConfig()

config.TrainConfig.steps = 4
config.TrainConfig.batch_size = 8
config.TrainConfig.log_every = 1
config.TrainConfig.eval_every = 0
config.TrainConfig.sample_every = 0
"""
