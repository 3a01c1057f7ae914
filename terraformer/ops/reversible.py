"""Residual stacks, plain and reversible: the backward pass of the latter recomputes activations from the last layer's
output (RevNet; paper, section 4).

A layer is a row of sublayers over one residual stream or two. Each reads the last stream and adds to the first, which
then becomes the last: x becomes x + f(x), and (a, b) becomes (b, a + f(b)), which f alone inverts: (a', b') comes of
(b' - f(a'), a'). The forward pass records the discrete choices of sublayers: recomputed from streams that differ in the
last bit, a few would fall otherwise, and the gradient would be that of another function.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

Streams = tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True)
class StackSpec:
  """What is known of a stack when it is compiled.

  Attributes:
    sublayer: computes what one sublayer of a layer adds to a stream, and the discrete choices that it makes:
      `sublayer(layer, x_BxTxD, scanned, shared, context, routing, number=number) -> (delta_BxTxD, routing)`. The inputs
      are those of `StackInputs` for one layer; `routing` are to be repeated, or None to make them.
    n_sublayers: of a layer, numbered from 0 in the order in which they are applied.
    unroll: layers in one turn of the compiled loop; a shorter stack is one turn.
    exact: whether streams and deltas are on a grid (`ops.fixed_point`), where adding and subtracting are exact. The
      backward pass of a reversible stack then recomputes the streams of the forward pass bit for bit, and takes a third
      more time. That a sublayer compiled alone is the same program in both passes is the compiler's doing: XLA's by
      default, not without its optimisations.
    exchange: whether the two streams change places after each layer.
  """

  sublayer: Callable[..., tuple[jax.Array, Any]]
  n_sublayers: int
  unroll: int = 1
  exact: bool = False
  exchange: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StackInputs:
  """What layers read besides the residual streams; of a stack, or of a single layer, without the leading axes.

  Attributes:
    layers: pytree of parameters, each array with a leading axis of layers.
    scanned: pytree of what differs from layer to layer (keys), with a leading axis of layers, or None. No gradient.
    shared: pytree of what all layers read (masks), or None. No gradient.
    context: pytree of what all layers read and has a gradient (an encoder's output), or None.
  """

  layers: Any
  scanned: Any = None
  shared: Any = None
  context: Any = None

  @property
  def by_layer(self) -> tuple[Any, Any]:
    """The part with a leading axis of layers, as loops take it."""
    return self.layers, self.scanned

  def with_layers(self, layers: Any, scanned: Any) -> 'StackInputs':
    """Those of other layers, or of a single one."""
    return StackInputs(layers, scanned, self.shared, self.context)

  @property
  def n_layers(self) -> int:
    """Layers of the stack."""
    return len(jax.tree.leaves(self.layers)[0])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerUpdate:
  """An optimiser's step for one layer of a stack.

  Attributes:
    function: `function(layer, moments, counters, gradient) -> (layer, moments)`, all of one layer.
    moments: pytree of floats that the step replaces, each with a leading axis of layers.
    counters: the same of what is no float, which it only reads.
  """

  function: Callable[[Any, Any, Any, Any], tuple[Any, Any]] = dataclasses.field(metadata={'static': True})
  moments: Any = None
  counters: Any = None


def add(streams: Streams, delta: jax.Array) -> Streams:
  """The streams after a sublayer."""
  return (*streams[1:], streams[0] + delta)


def apply_layer(
  spec: StackSpec, inputs: StackInputs, streams: Streams, *, alone: bool = False
) -> tuple[Streams, tuple]:
  """One layer, whose inputs these are: the new streams and the choices of each sublayer; `alone` as in `_alone`."""
  routing = []
  for number in range(spec.n_sublayers):
    sublayer = partial(spec.sublayer, number=number)
    arguments = inputs.layers, streams[-1], inputs.scanned, inputs.shared, inputs.context, None
    delta, choice = _alone(sublayer, *arguments) if alone else sublayer(*arguments)
    streams = add(streams, delta)
    routing.append(choice)
  return streams[::-1] if spec.exchange else streams, tuple(routing)


def stack(spec: StackSpec, inputs: StackInputs, streams: Streams) -> Streams:
  """Runs all layers and leaves the backward pass to automatic differentiation, which stores every activation.

  Args:
    spec: static.
    inputs: of the layers.
    streams: one residual stream or two, BxTxD each.
  """

  def advance(streams, by_layer):
    return apply_layer(spec, inputs.with_layers(*by_layer), streams)[0], None

  return jax.lax.scan(advance, streams, inputs.by_layer, unroll=_unroll(spec, inputs))[0]


def rematerialised_stack(spec: StackSpec, inputs: StackInputs, streams: Streams) -> Streams:
  """The same function as `stack`; of a layer only the input is stored, the rest is computed again."""

  @jax.checkpoint
  def advance(streams, by_layer):
    return apply_layer(spec, inputs.with_layers(*by_layer), streams)[0], None

  return jax.lax.scan(advance, streams, inputs.by_layer, unroll=_unroll(spec, inputs))[0]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def updating_stack(spec: StackSpec, inputs: StackInputs, streams: Streams, update: LayerUpdate) -> Streams:
  """A reversible stack with a fused optimiser step: the backward pass updates a layer as soon as its gradient is known
  (as LOMO does), so that the gradients of all layers are never alive.

  In the place of the gradients of `inputs.layers` and `update.moments`, the backward pass gives what becomes of them. A
  loss may contain such a stack once only: what is no gradient cannot be summed over its uses.

  Args:
    spec, inputs, streams: as of `stack`, with two streams.
    update: the optimiser's step.
  """
  return stack(spec, inputs, streams)


def _unroll(spec: StackSpec, inputs: StackInputs) -> int:
  return min(spec.unroll, inputs.n_layers)


def _alone(function: Callable, *arguments) -> Any:
  """`function(*arguments)`, compiled apart from what stands around it, so that it gives the same bits everywhere.

  XLA fuses operations with their neighbours, and rounds a fused multiplication and addition once instead of twice. The
  body of a loop has no neighbours; that this one turns once is hidden from the compiler, or it would dissolve it.
  """
  once, arguments = jax.lax.optimization_barrier((jnp.int32(1), arguments))
  nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *arguments))
  return jax.lax.fori_loop(0, once, lambda *_: function(*arguments), nothing)


def _forward(spec: StackSpec, inputs: StackInputs, streams: Streams, *update: LayerUpdate):
  """The streams after all layers; and what the backward pass starts from: these, the inputs and the choices."""

  def advance(streams, by_layer):
    return apply_layer(spec, inputs.with_layers(*by_layer), streams, alone=spec.exact)

  streams, routing = jax.lax.scan(advance, streams, inputs.by_layer, unroll=_unroll(spec, inputs))
  return streams, (inputs, streams, routing, *update)


def _retreat(spec: StackSpec, inputs: StackInputs, routing: tuple, state):
  """Takes one layer back, whose inputs and choices these are.

  Args:
    state: the streams after the layer, their gradients, and the gradient of the context from all layers behind.

  Returns:
    The state before the layer, and the gradient of its parameters.
  """
  (a, b), (d_a, d_b), d_context = state
  if spec.exchange:
    (a, b), (d_a, d_b) = (b, a), (d_b, d_a)
  d_layer = None
  for number, choice in reversed(list(enumerate(routing))):
    sublayer = partial(spec.sublayer, number=number)

    def delta_of(layer, x, context, sublayer=sublayer, choice=choice):
      return sublayer(layer, x, inputs.scanned, inputs.shared, context, choice)[0]

    delta, pull_back = jax.vjp(delta_of, inputs.layers, a, inputs.context)
    if spec.exact:  # what the forward pass computed: without the record, and compiled as there
      delta, _ = _alone(sublayer, inputs.layers, a, inputs.scanned, inputs.shared, inputs.context, None)
    d_parameters, d_read, d_sublayer_context = pull_back(d_b)
    a, b = b - delta, a
    d_a, d_b = d_b, d_a + d_read
    d_layer = d_parameters if d_layer is None else jax.tree.map(jnp.add, d_layer, d_parameters)
    d_context = jax.tree.map(jnp.add, d_context, d_sublayer_context)
  return ((a, b), (d_a, d_b), d_context), d_layer


def _backward(spec: StackSpec, residuals, d_streams: Streams):
  inputs, streams, routing = residuals

  def retreat(state, by_layer):
    by_layer, routing = by_layer
    return _retreat(spec, inputs.with_layers(*by_layer), routing, state)

  state = streams, d_streams, jax.tree.map(jnp.zeros_like, inputs.context)
  (_, d_streams, d_context), d_layers = jax.lax.scan(
    retreat, state, (inputs.by_layer, routing), reverse=True, unroll=_unroll(spec, inputs)
  )
  return StackInputs(d_layers, None, None, d_context), d_streams


def _backward_updating(spec: StackSpec, residuals, d_streams: Streams):
  inputs, streams, routing, update = residuals

  def retreat(carry, by_layer):
    state, stacked = carry
    index, counters, scanned, routing = by_layer
    layer, moments = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), stacked)
    state, d_layer = _retreat(spec, inputs.with_layers(layer, scanned), routing, state)
    new = update.function(layer, moments, counters, d_layer)
    # In the carry, and not among the results of each turn, the new layers take the place of the old.
    stacked = jax.tree.map(lambda x, new: jax.lax.dynamic_update_index_in_dim(x, new, index, 0), stacked, new)
    return (state, stacked), None

  state = streams, d_streams, jax.tree.map(jnp.zeros_like, inputs.context)
  ((_, d_streams, d_context), (layers, moments)), _ = jax.lax.scan(
    retreat,
    (state, (inputs.layers, update.moments)),
    (jnp.arange(inputs.n_layers), update.counters, inputs.scanned, routing),
    reverse=True,
    unroll=_unroll(spec, inputs),
  )
  return StackInputs(layers, None, None, d_context), d_streams, LayerUpdate(update.function, moments, None)


# The same function as `stack` over two streams, with memory that does not grow with the number of layers.
reversible_stack = jax.custom_vjp(stack, nondiff_argnums=(0,))
reversible_stack.defvjp(_forward, _backward)
updating_stack.defvjp(_forward, _backward_updating)
