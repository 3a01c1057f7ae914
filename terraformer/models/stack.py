"""A stack of layers: a scan over stacked parameters for training, separate layers for decoding.

B batch, T time, S time of the memory, D d_model, L layers.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import BlockConfig, ModelConfig
from terraformer.layers.dense import Dense
from terraformer.layers.parameter import add_facts
from terraformer.models.block import Block
from terraformer.models.residual import Residual
from terraformer.models.sublayers import SequenceMasks
from terraformer.ops.cache_slots import FilledSlots
from terraformer.ops.reversible import StackInputs, StackSpec, Streams, apply_layer

_NO_PADDING = SequenceMasks(None)


def _pick(tree: Any, layers: int | slice) -> Any:
  """Returns one layer, or some layers, of arrays with a leading axis of layers."""
  return jax.tree.map(lambda x: x[layers], tree)


class BaseStack(nnx.Module):
  """The base class of scanned and layerwise stacks: the runs of layers, and the `forget` layers between them."""

  def layer_runs(self) -> list[slice]:
    """Returns the runs of layers between which the streams are merged."""
    length = self.residual.forget_every or self.n_layers
    return [slice(first, min(first + length, self.n_layers)) for first in range(0, self.n_layers, length)]

  def forget(self, streams: Streams, forget: Dense) -> Streams:
    """Merges the streams, applies a dense layer, and splits the result into streams again."""
    return self.residual.split_streams(forget(self.residual.merge_streams(streams)))


class Stack(BaseStack):
  """`n_layers` blocks over the residual streams, with stacked parameters."""

  def __init__(
    self,
    model: ModelConfig,
    block: BlockConfig,
    n_layers: int,
    n_attentions: int,
    *,
    causal: bool,
    cross: bool = False,
    exchange: bool = False,
    key: jax.Array,
  ):
    block_key, forget_key = jax.random.split(key)
    make = lambda key: Block(model, block, n_attentions, causal, cross, key=key)  # noqa: E731
    self.blocks = jax.vmap(make)(jax.random.split(block_key, n_layers))
    add_facts(self.blocks, loop='blocks')
    self.n_layers = n_layers
    self.residual = Residual(model.residual)
    self.spec = StackSpec(Block.delta, n_attentions + cross + 1, model.unroll, self.residual.exact, exchange)
    make_forget = lambda key: Dense(block.d_model, block.d_model, key=key, axes=('embed', None))  # noqa: E731
    n_forgets = len(self.layer_runs()) - 1
    self.forgets = jax.vmap(make_forget)(jax.random.split(forget_key, n_forgets)) if n_forgets else None
    add_facts(self.forgets, group='merging streams', loop='forgets')

  def __call__(
    self, streams: Streams, masks: SequenceMasks, memory_BxSxD: jax.Array | None = None, *, key: jax.Array | None = None
  ) -> Streams:
    """Computes all positions of the streams BxTxD.

    Args:
      streams: result of `residual.split_streams`.
      masks: masks of the sequence and of the memory.
      memory_BxSxD: input of cross-attention; None without cross-attention.
      key: random key for all noise; None for evaluation.
    """
    inputs = self.inputs(masks, memory_BxSxD, key)
    for index, run in enumerate(self.layer_runs()):
      if index:
        streams = self.forget(streams, _pick(self.forgets, index - 1))
      streams = self.residual.run(self.spec, inputs.with_layers(*_pick(inputs.by_layer, run)), streams)
    return streams

  def inputs(self, masks: SequenceMasks, memory_BxSxD: jax.Array | None, key: jax.Array | None) -> StackInputs:
    """Returns the layers' inputs: `Block.delta` of layer l gets block l, key l, the masks and the memory."""
    keys_L = None if key is None else jax.random.split(key, self.n_layers)
    return StackInputs(self.blocks, keys_L, masks, memory_BxSxD)

  @property
  def can_update(self) -> bool:
    """Whether the backward pass can update the layers: the stack is reversible, in one run of layers."""
    return self.residual.reversible and self.forgets is None

  def scan(self, layer, streams: Streams, by_layer) -> tuple[Streams, Any]:
    """Scans `layer(streams, inputs of one layer) -> (streams, result)` over all layers and stacks the results."""
    results = []
    for index, run in enumerate(self.layer_runs()):
      if index:
        streams = self.forget(streams, _pick(self.forgets, index - 1))
      streams, result = jax.lax.scan(layer, streams, _pick(by_layer, run))
      results.append(result)
    return streams, results[0] if len(results) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x), *results)

  def init_cache(self, batch: int, capacity: int, memory: jax.Array | None = None, masks: SequenceMasks = _NO_PADDING):
    """Returns the caches of all layers, each array with a leading axis of layers."""
    return jax.vmap(lambda block: block.init_cache(batch, capacity, memory, masks))(self.blocks)

  def prefill(self, streams: Streams, length_B: jax.Array, capacity: int):
    """Computes all positions and the caches after the first `length_B` of them; `capacity` is at least T."""
    return self.scan(lambda streams, block: block.prefill(streams, length_B, capacity), streams, self.blocks)

  def step(self, streams: Streams, caches, filled: FilledSlots):
    """Computes one position of the streams BxD; `filled` has the filled slots of the caches."""
    return self.scan(lambda streams, layer: layer[0].step(streams, layer[1], filled), streams, (self.blocks, caches))


# All layers of a stack have the same shapes. Outside a compiled program, these functions are compiled for one layer and
# called for each.
_apply_layer = jax.jit(apply_layer, static_argnums=0)
_prefill_layer = jax.jit(Block.prefill, static_argnums=3)


class LayerwiseStack(BaseStack):
  """The same layers as separate modules, each with its own arrays, which a decoder reads without copying."""

  def __init__(self, stack: Stack):
    """Splits a scanned stack into its layers."""

    def unstack(tree, count):
      return nnx.List([_pick(tree, index) for index in range(count)])

    self.n_layers = stack.n_layers
    self.residual = stack.residual
    self.blocks = unstack(stack.blocks, stack.n_layers)
    self.forgets = unstack(stack.forgets, len(stack.layer_runs()) - 1)
    self.spec = stack.spec

  def _apply_layers(self, layer, streams: Streams) -> tuple[Streams, tuple]:
    """Applies `layer(index, streams)` to each layer in order, and merges the streams between runs of layers."""
    starts = [run.start for run in self.layer_runs()]
    results = []
    for index in range(self.n_layers):
      if index and index in starts:
        streams = self.forget(streams, self.forgets[starts.index(index) - 1])
      streams, result = layer(index, streams)
      results.append(result)
    return streams, tuple(results)

  def __call__(
    self, streams: Streams, masks: SequenceMasks, memory_BxSxD: jax.Array | None = None, *, key: None = None
  ) -> Streams:
    """Computes all positions of the streams BxTxD, in evaluation."""
    read = lambda index: StackInputs(self.blocks[index], key, masks, memory_BxSxD)  # noqa: E731
    return self._apply_layers(lambda index, streams: _apply_layer(self.spec, read(index), streams), streams)[0]

  def init_cache(
    self, batch: int, capacity: int, memory: jax.Array | None = None, masks: SequenceMasks = _NO_PADDING
  ) -> tuple:
    """Returns a cache for each layer."""
    return tuple(block.init_cache(batch, capacity, memory, masks) for block in self.blocks)

  def prefill(self, streams: Streams, length_B: jax.Array, capacity: int) -> tuple[Streams, tuple]:
    """Computes all positions and the caches after the first `length_B` of them; `capacity` is at least T."""
    return self._apply_layers(
      lambda index, streams: _prefill_layer(self.blocks[index], streams, length_B, capacity), streams
    )

  def step(self, streams: Streams, caches: tuple, filled: FilledSlots) -> tuple[Streams, tuple]:
    """Computes one position of the streams BxD; `filled` has the filled slots of the caches."""
    return self._apply_layers(lambda index, streams: self.blocks[index].step(streams, caches[index], filled), streams)
