"""Makes layers from their configurations.

There is no list of mechanisms: a configuration names its layer in `made_by`, and the layer's constructor takes the
arguments below. The parameters also get their group in the table of costs here.
"""

import jax
from flax import nnx

from terraformer.config import BlockConfig, NormConfig, OutputConfig, PositionsConfig
from terraformer.config.base import Family, maker
from terraformer.layers.parameter import add_facts


def _made(config: Family, group: str, *arguments, **options) -> nnx.Module:
  layer = maker(config)(*arguments, **options)
  add_facts(layer, group=group)
  return layer


def make_attention(block: BlockConfig, causal: bool, *, key: jax.Array) -> nnx.Module:
  """Returns an attention layer with its projection (see `layers.attention.Attention`)."""
  return _made(block.attention, 'QKV', block, causal, key=key)


def make_projection(block: BlockConfig, *, key: jax.Array) -> nnx.Module:
  """Returns the projection of an attention layer, a `layers.projection.Projection`."""
  return _made(block.projection, 'QKV', block.projection, block.d_model, block.n_heads, key=key)


def make_feed_forward(block: BlockConfig, *, key: jax.Array) -> nnx.Module:
  """Returns a feed-forward block with the dropout rate of its layer (see `layers.dense_ff.DenseFF`)."""
  return _made(block.feed_forward, 'feed-forward', block.feed_forward, block.d_model, block.dropout, key=key)


def make_norm(config: NormConfig, d_model: int, group: str = 'normalization') -> nnx.Module:
  """Returns a normalization layer with scale 1 and bias 0. `group` is the group of its parameters."""
  return _made(config, group, config, d_model)


def make_positions(config: PositionsConfig, max_length: int, d_model: int, *, key: jax.Array) -> nnx.Module:
  """Returns a layer that adds positions to at most `max_length` embeddings (see `layers.positions.PositionTable`)."""
  return _made(config, 'positions', config, max_length, d_model, key=key)


def make_output(config: OutputConfig, d_model: int, vocab_size: int, *, key: jax.Array) -> nnx.Module:
  """Returns an output layer, which maps vectors ...xD to logits ...xV."""
  return _made(config, 'output layer', config, d_model, vocab_size, key=key)
