"""Residual stacks, plain and reversible (RevNet; paper, section 4).

The backward pass of a reversible stack recomputes activations from the output of the last layer. A layer is a sequence
of sublayers over one or two residual streams. Each sublayer f reads the last stream and adds to the first, which then
becomes the last: x becomes x + f(x), and (a, b) becomes (a', b') = (b, a + f(b)). Two streams can be recovered from the
result: (a, b) = (b' - f(a'), a').

The forward pass records the sublayers' discrete choices (their routing). If the backward pass chose again, from streams
that differ in the last bit, a few choices would differ, and the gradient would belong to another function.
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
  """The static properties of a stack.

  Attributes:
    sublayer: returns what one sublayer of a layer adds to a stream, and its discrete choices:
      `sublayer(layer, x_BxTxD, scanned, shared, context, routing, number=number) -> (delta_BxTxD, routing)`. The inputs
      are those of `StackInputs` for one layer; `routing` has the choices to repeat, or is None to make new ones.
    n_sublayers: sublayers per layer, numbered from 0 in the order in which they are applied.
    unroll: layers per turn of the compiled loop; a shorter stack takes one turn.
    exact: whether streams and deltas are on a grid (`ops.fixed_point`), where addition and subtraction are exact. The
      backward pass of a reversible stack then recomputes the streams of the forward pass bit for bit, and takes a third
      more time. This relies on the compiler to translate an isolated sublayer into the same program in both passes: XLA
      does so by default, but not with its optimizations turned off.
    exchange: whether the two streams are swapped after each layer.
  """

  sublayer: Callable[..., tuple[jax.Array, Any]]
  n_sublayers: int
  unroll: int = 1
  exact: bool = False
  exchange: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StackInputs:
  """The inputs of layers besides the residual streams: of a stack, or of one layer, without the leading axes.

  Attributes:
    layers: pytree of parameters, each with a leading axis of layers.
    scanned: pytree of inputs that differ between layers (keys), with a leading axis of layers, or None. No gradient.
    shared: pytree of inputs that all layers share (masks), or None. No gradient.
    context: pytree of inputs that all layers share and that have a gradient (an encoder's output), or None.
  """

  layers: Any
  scanned: Any = None
  shared: Any = None
  context: Any = None

  @property
  def by_layer(self) -> tuple[Any, Any]:
    """The inputs with a leading axis of layers, over which loops iterate."""
    return self.layers, self.scanned

  def with_layers(self, layers: Any, scanned: Any) -> 'StackInputs':
    """Returns the inputs with other layers, or with a single layer."""
    return StackInputs(layers, scanned, self.shared, self.context)

  @property
  def n_layers(self) -> int:
    """Number of layers of the stack."""
    return len(jax.tree.leaves(self.layers)[0])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerUpdate:
  """An optimizer step for one layer of a stack.

  Attributes:
    function: `function(layer, moments, counters, gradient) -> (layer, moments)`, all for one layer.
    moments: pytree of float arrays that the step replaces, each with a leading axis of layers.
    counters: pytree of other arrays, which the step only reads, each with a leading axis of layers.
  """

  function: Callable[[Any, Any, Any, Any], tuple[Any, Any]] = dataclasses.field(metadata={'static': True})
  moments: Any = None
  counters: Any = None


def add(streams: Streams, delta: jax.Array) -> Streams:
  """Returns the streams after a sublayer that adds `delta`."""
  return (*streams[1:], streams[0] + delta)


def apply_layer(
  spec: StackSpec, inputs: StackInputs, streams: Streams, *, isolated: bool = False
) -> tuple[Streams, tuple]:
  """Returns the streams after one layer, and the routing of its sublayers.

  Args:
    spec: static properties of the stack.
    inputs: inputs of this layer.
    streams: the streams before the layer.
    isolated: whether to compile each sublayer in isolation, see `_isolated`.
  """
  routing = []
  for number in range(spec.n_sublayers):
    sublayer = partial(spec.sublayer, number=number)
    arguments = inputs.layers, streams[-1], inputs.scanned, inputs.shared, inputs.context, None
    delta, choice = _isolated(sublayer, *arguments) if isolated else sublayer(*arguments)
    streams = add(streams, delta)
    routing.append(choice)
  return streams[::-1] if spec.exchange else streams, tuple(routing)


def stack(spec: StackSpec, inputs: StackInputs, streams: Streams) -> Streams:
  """Returns the streams after all layers. Automatic differentiation stores every activation for the backward pass.

  Args:
    spec: static properties of the stack.
    inputs: inputs of the layers.
    streams: one or two residual streams, BxTxD each.
  """

  def advance(streams, by_layer):
    return apply_layer(spec, inputs.with_layers(*by_layer), streams)[0], None

  return jax.lax.scan(advance, streams, inputs.by_layer, unroll=_unroll(spec, inputs))[0]


def rematerialized_stack(spec: StackSpec, inputs: StackInputs, streams: Streams) -> Streams:
  """Returns the result of `stack`; only each layer's input is stored, and the backward pass recomputes the rest."""

  @jax.checkpoint
  def advance(streams, by_layer):
    return apply_layer(spec, inputs.with_layers(*by_layer), streams)[0], None

  return jax.lax.scan(advance, streams, inputs.by_layer, unroll=_unroll(spec, inputs))[0]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def updating_stack(spec: StackSpec, inputs: StackInputs, streams: Streams, update: LayerUpdate) -> Streams:
  """Returns the result of a reversible stack with a fused optimizer step.

  The backward pass updates a layer as soon as its gradient is known (as in LOMO), so the gradients of all layers never
  exist at once. It returns the new values of `inputs.layers` and `update.moments` instead of their gradients. A loss
  may therefore use such a stack only once, because the sum over several uses would be meaningless.

  Args:
    spec, inputs, streams: arguments of `stack`, with two streams.
    update: the optimizer step.
  """
  return stack(spec, inputs, streams)


def _unroll(spec: StackSpec, inputs: StackInputs) -> int:
  return min(spec.unroll, inputs.n_layers)


def _isolated(function: Callable, *arguments) -> Any:
  """Returns `function(*arguments)`, compiled in isolation, so it computes the same bits wherever it is used.

  XLA fuses operations with their neighbors, and rounds a fused multiply-add once instead of twice. Operations in the
  body of a loop are not fused with those outside. This loop takes one turn; the optimization barrier hides that from
  the compiler, which would otherwise remove the loop.
  """
  once, arguments = jax.lax.optimization_barrier((jnp.int32(1), arguments))
  nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *arguments))
  return jax.lax.fori_loop(0, once, lambda *_: function(*arguments), nothing)


def _forward(spec: StackSpec, inputs: StackInputs, streams: Streams, *update: LayerUpdate):
  """Returns the streams after all layers, and the residuals of the backward pass: inputs, these streams and routing."""

  def advance(streams, by_layer):
    return apply_layer(spec, inputs.with_layers(*by_layer), streams, isolated=spec.exact)

  streams, routing = jax.lax.scan(advance, streams, inputs.by_layer, unroll=_unroll(spec, inputs))
  return streams, (inputs, streams, routing, *update)


def _retreat(spec: StackSpec, inputs: StackInputs, routing: tuple, state):
  """Inverts one layer and computes its gradients.

  Args:
    spec: static properties of the stack.
    inputs: inputs of the layer.
    routing: recorded choices of its sublayers.
    state: the streams after the layer, their gradients, and the gradient of the context from all later layers.

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
    if spec.exact:  # as in the forward pass: without recorded routing, and compiled in isolation
      delta, _ = _isolated(sublayer, inputs.layers, a, inputs.scanned, inputs.shared, inputs.context, None)
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
    # In the carry, new layers overwrite the old ones; as outputs of the scan, they would need memory of their own.
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


# Equal to `stack` over two streams, with activation memory that does not grow with the number of layers.
reversible_stack = jax.custom_vjp(stack, nondiff_argnums=(0,))
reversible_stack.defvjp(_forward, _backward)
updating_stack.defvjp(_forward, _backward_updating)
