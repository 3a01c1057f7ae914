"""A stack of layers: scanned over stacked parameters to train, unrolled layer by layer to decode.

B batch, T time, S time of the memory, D d_model, L layers.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import BlockConfig, ModelConfig, ResidualConfig
from terraformer.layers.dense import Dense
from terraformer.layers.parameter import tell
from terraformer.models.block import Block
from terraformer.models.halves import Padding
from terraformer.ops.fixed_point import to_grid
from terraformer.ops.reversible import (
  Streams,
  exact_reversible_stack,
  exact_updating_stack,
  forward_layer,
  rematerialised_stack,
  reversible_stack,
  stack,
  updating_stack,
)

_NO_PADDING = Padding(None)
# Those of the functions that can update layers in their backward pass, as the functions that do.
_UPDATING = {reversible_stack: updating_stack, exact_reversible_stack: exact_updating_stack}


@functools.cache  # so that two models of one config have equal structures, and share compiled programs
def _half(index: int):
  """The half-residual number `index` of a layer, as `ops.reversible` calls it."""

  def apply(block: Block, x_BxTxD, key, padding: Padding, memory_BxSxD, choices):
    key = None if key is None else jax.random.fold_in(key, index)
    return block.delta(index, x_BxTxD, padding, memory_BxSxD, key, choices)

  return apply


def _runner(residual: ResidualConfig):
  """The function of `ops.reversible` that a config asks for."""
  if residual.keep_activations:
    return stack
  if residual.n_streams == 1:
    return rematerialised_stack
  return exact_reversible_stack if residual.fixed_point else reversible_stack


class Residual(nnx.Module):
  """How a vector enters the residual streams, and how it leaves them."""

  def __init__(self, config: ResidualConfig):
    self.config = config

  def enter(self, x: jax.Array) -> Streams:
    """One stream, or two equal ones."""
    if self.config.n_streams == 1:
      return (x,)
    if self.config.fixed_point:
      x = to_grid(x)
    return x, x

  def leave(self, streams: Streams) -> jax.Array:
    """Their mean."""
    return sum(streams) / len(streams)


class Segmented(nnx.Module):
  """What the scanned and the unrolled form share: where layers forget."""

  def segments(self) -> list[tuple[int, int]]:
    """(first layer, last layer + 1) of the runs of layers between which the streams are merged."""
    length = self.residual.config.forget_every or self.n_layers
    return [(first, min(first + length, self.n_layers)) for first in range(0, self.n_layers, length)]

  def forget(self, streams: Streams, forget: Dense) -> Streams:
    """Merges the streams into one vector, from which both go on."""
    return self.residual.enter(forget(self.residual.leave(streams)))


class Stack(Segmented):
  """`n_layers` blocks over the residual streams, their parameters stacked."""

  def __init__(
    self,
    model: ModelConfig,
    block: BlockConfig,
    n_layers: int,
    n_attentions: int,
    *,
    causal: bool,
    cross: bool = False,
    key: jax.Array,
  ):
    block_key, forget_key = jax.random.split(key)
    make = lambda key: Block(model, block, n_attentions, causal, cross, key=key)  # noqa: E731
    self.blocks = jax.vmap(make)(jax.random.split(block_key, n_layers))
    tell(self.blocks, loop='blocks')
    self.halves = tuple(_half(index) for index in range(n_attentions + cross + 1))
    self.n_layers = n_layers
    self.residual = Residual(model.residual)
    self.run = _runner(model.residual)
    self.unroll = model.unroll
    make_forget = lambda key: Dense(block.d_model, block.d_model, key=key, axes=('embed', None))  # noqa: E731
    n_forgets = len(self.segments()) - 1
    self.forgets = jax.vmap(make_forget)(jax.random.split(forget_key, n_forgets)) if n_forgets else None
    tell(self.forgets, part='merging streams', loop='forgets')

  def _run_segments(self, run, streams: Streams, inputs) -> tuple[Streams, Any]:
    """`run(streams, inputs of some layers) -> (streams, results of each layer)`, one segment after the other."""
    segments = self.segments()
    if len(segments) == 1:
      return run(streams, inputs)
    results = []
    for index, (first, last) in enumerate(segments):
      if index:
        streams = self.forget(streams, jax.tree.map(lambda x, index=index: x[index - 1], self.forgets))
      streams, result = run(streams, jax.tree.map(lambda x, first=first, last=last: x[first:last], inputs))
      results.append(result)
    return streams, jax.tree.map(lambda *parts: jnp.concatenate(parts), *results)

  def scan(self, layer, streams: Streams, inputs) -> tuple[Streams, Any]:
    """`layer(streams, inputs of one layer) -> (streams, result)` for all layers; results are stacked."""
    return self._run_segments(lambda streams, inputs: jax.lax.scan(layer, streams, inputs), streams, inputs)

  def __call__(
    self, streams: Streams, padding: Padding, memory_BxSxD: jax.Array | None = None, *, key: jax.Array | None = None
  ) -> Streams:
    """All positions of the streams BxTxD.

    Args:
      streams: of `residual.enter`.
      padding: which positions are real.
      memory_BxSxD: what cross-attention reads; None without it.
      key: of all noise; None is evaluation.
    """
    keys_L = None if key is None else jax.random.split(key, self.n_layers)

    def run(streams, layers):
      blocks, keys = layers
      unroll = min(self.unroll, len(jax.tree.leaves(blocks)[0]))
      return self.run(self.halves, blocks, streams, keys, padding, memory_BxSxD, unroll), None

    return self._run_segments(run, streams, (self.blocks, keys_L))[0]

  @property
  def can_update(self) -> bool:
    """Whether `update_backwards` may be called: the backward pass is the stack's own, and one for all layers."""
    return self.run in _UPDATING and self.forgets is None

  def update_backwards(self, update: Callable, kept: Any, fixed: Any) -> None:
    """From now on the backward pass updates the layers; arguments as those of `ops.reversible.updating_stack`."""
    run = _UPDATING[self.run]
    self.run = lambda halves, blocks, *arguments: run(halves, update, blocks, kept, fixed, *arguments)

  def init_cache(self, batch: int, capacity: int, memory: jax.Array | None = None, padding: Padding = _NO_PADDING):
    """The caches of all layers, each array with a leading axis of layers."""
    return jax.vmap(lambda block: block.init_cache(batch, capacity, memory, padding))(self.blocks)

  def prefill(self, streams: Streams, length_B: jax.Array, capacity: int):
    """All positions, and the caches after the first `length_B` of them; `capacity` is at least T."""
    return self.scan(lambda streams, block: block.prefill(streams, length_B, capacity), streams, self.blocks)

  def step(self, streams: Streams, caches):
    """One position of the streams BxD."""
    return self.scan(lambda streams, layer: layer[0].step(streams, layer[1]), streams, (self.blocks, caches))


# All layers of a stack have the same shapes: called outside of a compiled program, these are compiled for one of them.
_call_layer = jax.jit(forward_layer, static_argnums=0)
_prefill_layer = jax.jit(Block.prefill, static_argnums=3)


class UnrolledStack(Segmented):
  """The same layers as separate modules, each with arrays of its own that a decoder reads where they lie."""

  def __init__(self, stack: Stack):
    """Takes the layers of a scanned stack apart."""

    def apart(tree, count):
      return nnx.List([jax.tree.map(lambda x, index=index: x[index], tree) for index in range(count)])

    self.n_layers = stack.n_layers
    self.residual = stack.residual
    self.blocks = apart(stack.blocks, stack.n_layers)
    self.forgets = apart(stack.forgets, len(stack.segments()) - 1)
    self.halves = stack.halves

  def _each(self, layer, streams: Streams) -> tuple[Streams, tuple]:
    """Applies `layer(index, streams)` one by one, and merges the streams where segments meet."""
    starts = [first for first, _ in self.segments()]
    results = []
    for index in range(self.n_layers):
      if index and index in starts:
        streams = self.forget(streams, self.forgets[starts.index(index) - 1])
      streams, result = layer(index, streams)
      results.append(result)
    return streams, tuple(results)

  def __call__(
    self, streams: Streams, padding: Padding, memory_BxSxD: jax.Array | None = None, *, key: None = None
  ) -> Streams:
    """All positions of the streams BxTxD, for evaluation."""
    return self._each(
      lambda index, streams: _call_layer(self.halves, streams, self.blocks[index], key, padding, memory_BxSxD),
      streams,
    )[0]

  def init_cache(
    self, batch: int, capacity: int, memory: jax.Array | None = None, padding: Padding = _NO_PADDING
  ) -> tuple:
    """A cache for each layer."""
    return tuple(block.init_cache(batch, capacity, memory, padding) for block in self.blocks)

  def prefill(self, streams: Streams, length_B: jax.Array, capacity: int) -> tuple[Streams, tuple]:
    """All positions, and the caches after the first `length_B` of them; `capacity` is at least T."""
    return self._each(lambda index, streams: _prefill_layer(self.blocks[index], streams, length_B, capacity), streams)

  def step(self, streams: Streams, caches: tuple) -> tuple[Streams, tuple]:
    """One position of the streams BxD."""
    return self._each(lambda index, streams: self.blocks[index].step(streams, caches[index]), streams)
