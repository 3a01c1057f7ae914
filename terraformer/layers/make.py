"""From a config to the layer that it asks for.

Kinds of a mechanism are listed nowhere: a config names what makes its layer, of the arguments below. What a layer does
not know of its parameters is told here: the part of the model that they are.
"""

import jax
from flax import nnx

from terraformer.config import BlockConfig, NormConfig, OutputConfig, PositionsConfig
from terraformer.config.base import Family, maker
from terraformer.layers.parameter import tell


def _made(config: Family, group: str, *arguments, **options) -> nnx.Module:
  layer = maker(config)(*arguments, **options)
  tell(layer, group=group)
  return layer


def make_attention(block: BlockConfig, causal: bool, *, key: jax.Array) -> nnx.Module:
  """The attention of a layer, with its projection (see `layers.attention.Attention`)."""
  return _made(block.attention, 'QKV', block, causal, key=key)


def make_projection(block: BlockConfig, *, key: jax.Array) -> nnx.Module:
  """The projection of an attention layer, a `layers.projection.Projection`."""
  return _made(block.projection, 'QKV', block.projection, block.d_model, block.n_heads, key=key)


def make_feed_forward(block: BlockConfig, *, key: jax.Array) -> nnx.Module:
  """The feed-forward block of a layer, with the layer's dropout (see `layers.dense_ff.DenseFF`)."""
  return _made(block.feed_forward, 'feed-forward', block.feed_forward, block.d_model, block.dropout, key=key)


def make_norm(config: NormConfig, d_model: int, group: str = 'normalisation') -> nnx.Module:
  """A normalisation; it starts as scale 1 and bias 0. `group` is that of its parameters."""
  return _made(config, group, config, d_model)


def make_positions(config: PositionsConfig, max_length: int, d_model: int, *, key: jax.Array) -> nnx.Module:
  """The positions of one embedding of `max_length` tokens (see `layers.positions.PositionTable`)."""
  return _made(config, 'positions', config, max_length, d_model, key=key)


def make_output(config: OutputConfig, d_model: int, vocab_size: int, *, key: jax.Array) -> nnx.Module:
  """The layer from vectors ...xD to logits ...xV."""
  return _made(config, 'output layer', config, d_model, vocab_size, key=key)
