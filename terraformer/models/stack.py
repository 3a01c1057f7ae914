"""A reversible stack of layers, their parameters stacked on a leading axis and scanned.

B batch, T time, D d_model, L layers.
"""

import jax
from flax import nnx

from terraformer.config import BlockConfig
from terraformer.models.block import Block, Padding
from terraformer.ops.reversible import Streams, reversible_stack, stack


def _half(index: int):
  """The half-residual number `index` of a layer, as `ops.reversible` calls it."""

  def apply(block: Block, x_BxTxD, key, padding: Padding, choices):
    key = None if key is None else jax.random.fold_in(key, index)
    return block.halves[index](x_BxTxD, padding, key=key, choices=choices)

  return apply


class Stack(nnx.Module):
  """`n_layers` blocks over a pair of residual streams."""

  def __init__(
    self, config: BlockConfig, n_layers: int, n_attentions: int, causal: bool, keep_activations: bool, *, key: jax.Array
  ):
    self.blocks = jax.vmap(lambda key: Block(config, n_attentions, causal, key=key))(jax.random.split(key, n_layers))
    self.halves = tuple(_half(index) for index in range(n_attentions + 1))
    self.n_layers = n_layers
    self.run = stack if keep_activations else reversible_stack

  def __call__(self, streams: Streams, padding: Padding, *, key: jax.Array | None = None) -> Streams:
    """All positions of the two streams BxTxD."""
    keys_L = None if key is None else jax.random.split(key, self.n_layers)
    return self.run(self.halves, self.blocks, streams, keys_L, padding)

  def init_cache(self, batch: int, capacity: int):
    """The caches of all layers, each array with a leading axis of layers."""
    return jax.vmap(lambda block: block.init_cache(batch, capacity))(self.blocks)

  def prefill(self, streams: Streams, length_B: jax.Array, capacity: int):
    """All positions, and the caches after the first `length_B` of them; `capacity` is at least T."""
    return jax.lax.scan(lambda streams, block: block.prefill(streams, length_B, capacity), streams, self.blocks)

  def step(self, streams: Streams, caches):
    """One position of the two streams BxD."""
    return jax.lax.scan(lambda streams, layer: layer[0].step(streams, layer[1]), streams, (self.blocks, caches))
