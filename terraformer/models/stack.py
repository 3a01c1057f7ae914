"""A reversible stack of layers: scanned over stacked parameters to train, unrolled layer by layer to decode.

B batch, T time, D d_model, L layers.
"""

import functools

import jax
from flax import nnx

from terraformer.config import BlockConfig
from terraformer.models.block import Block, Padding
from terraformer.ops.reversible import Streams, forward_layer, reversible_stack, stack


@functools.cache  # so that two models of one config have equal structures, and share compiled programs
def _half(index: int):
  """The half-residual number `index` of a layer, as `ops.reversible` calls it."""

  def apply(block: Block, x_BxTxD, key, padding: Padding, choices):
    key = None if key is None else jax.random.fold_in(key, index)
    return block.halves[index](x_BxTxD, padding, key=key, choices=choices)

  return apply


class Stack(nnx.Module):
  """`n_layers` blocks over a pair of residual streams."""

  def __init__(
    self,
    config: BlockConfig,
    n_layers: int,
    n_attentions: int,
    causal: bool,
    keep_activations: bool,
    unroll: int,
    *,
    key: jax.Array,
  ):
    self.blocks = jax.vmap(lambda key: Block(config, n_attentions, causal, key=key))(jax.random.split(key, n_layers))
    self.halves = tuple(_half(index) for index in range(n_attentions + 1))
    self.n_layers = n_layers
    self.run = stack if keep_activations else reversible_stack
    self.unroll = min(unroll, n_layers)

  def __call__(self, streams: Streams, padding: Padding, *, key: jax.Array | None = None) -> Streams:
    """All positions of the two streams BxTxD."""
    keys_L = None if key is None else jax.random.split(key, self.n_layers)
    return self.run(self.halves, self.blocks, streams, keys_L, padding, self.unroll)

  def init_cache(self, batch: int, capacity: int):
    """The caches of all layers, each array with a leading axis of layers."""
    return jax.vmap(lambda block: block.init_cache(batch, capacity))(self.blocks)

  def prefill(self, streams: Streams, length_B: jax.Array, capacity: int):
    """All positions, and the caches after the first `length_B` of them; `capacity` is at least T."""
    return jax.lax.scan(lambda streams, block: block.prefill(streams, length_B, capacity), streams, self.blocks)

  def step(self, streams: Streams, caches):
    """One position of the two streams BxD."""
    return jax.lax.scan(lambda streams, layer: layer[0].step(streams, layer[1]), streams, (self.blocks, caches))


class UnrolledStack(nnx.Module):
  """The same layers as separate modules, each with arrays of its own that a decoder reads where they lie."""

  def __init__(self, stack: Stack):
    """Takes the layers of a scanned stack apart."""
    self.blocks = nnx.List(
      [jax.tree.map(lambda x, layer=layer: x[layer], stack.blocks) for layer in range(stack.n_layers)]
    )
    self.halves = stack.halves

  def __call__(self, streams: Streams, padding: Padding, *, key: None = None) -> Streams:
    """All positions of the two streams BxTxD, for evaluation."""
    for block in self.blocks:
      streams, _ = forward_layer(self.halves, streams, block, key, padding)
    return streams

  def init_cache(self, batch: int, capacity: int) -> tuple:
    """A cache for each layer."""
    return tuple(block.init_cache(batch, capacity) for block in self.blocks)

  def prefill(self, streams: Streams, length_B: jax.Array, capacity: int) -> tuple[Streams, tuple]:
    """All positions, and the caches after the first `length_B` of them; `capacity` is at least T."""
    caches = []
    for block in self.blocks:
      streams, cache = block.prefill(streams, length_B, capacity)
      caches.append(cache)
    return streams, tuple(caches)

  def step(self, streams: Streams, caches: tuple) -> tuple[Streams, tuple]:
    """One position of the two streams BxD."""
    new_caches = []
    for block, cache in zip(self.blocks, caches, strict=True):
      streams, cache = block.step(streams, cache)
      new_caches.append(cache)
    return streams, tuple(new_caches)
