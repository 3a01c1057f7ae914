"""Residual stacks, plain and reversible: the backward pass of the latter recomputes activations from the last layer's
output (RevNet; paper, section 4).

A layer is a row of half-residuals over one stream or two. Each reads the last stream and adds to the first, which then
becomes the last: x becomes x + f(x), and (a, b) becomes (b, a + f(b)), which f alone inverts: (a', b') comes of
(b' - f(a'), a'). A half-residual is a function

  half(layer, x_BxTxD, scanned, shared, context, choices) -> (delta_BxTxD, choices)

of one layer's parameters, the stream that it reads, the inputs of that layer (keys), the inputs of all layers (masks),
such inputs that get a gradient (an encoder's output), and the discrete choices to repeat, or None to make them. The
forward pass records the choices: recomputed from streams that differ in the last bit, a few would fall otherwise, and
the gradient would be that of another function.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

Half = Callable[..., tuple[jax.Array, Any]]
Streams = tuple[jax.Array, ...]


def add(streams: Streams, delta: jax.Array) -> Streams:
  """The streams after a half-residual."""
  return (*streams[1:], streams[0] + delta)


def forward_layer(halves: tuple[Half, ...], streams: Streams, layer, scanned, shared, context) -> tuple[Streams, tuple]:
  """One layer: the new streams and the choices of each half-residual."""
  choices = []
  for half in halves:
    delta, choice = half(layer, streams[-1], scanned, shared, context, None)
    streams = add(streams, delta)
    choices.append(choice)
  return streams, tuple(choices)


def stack(halves: tuple[Half, ...], layers, streams: Streams, scanned, shared, context, unroll: int = 1) -> Streams:
  """Runs all layers and leaves the backward pass to automatic differentiation, which stores every activation.

  Args:
    halves: the half-residuals of a layer.
    layers: pytree of the layers' parameters, each with a leading axis of layers.
    streams: one residual stream or two, BxTxD each.
    scanned: pytree of inputs with a leading axis of layers, or None.
    shared: pytree of inputs that all layers get, or None.
    context: the same with a gradient.
    unroll: layers in one turn of the compiled loop.
  """

  def advance(streams, per_layer):
    return forward_layer(halves, streams, *per_layer, shared, context)[0], None

  return jax.lax.scan(advance, streams, (layers, scanned), unroll=unroll)[0]


def rematerialised_stack(
  halves: tuple[Half, ...], layers, streams: Streams, scanned, shared, context, unroll: int = 1
) -> Streams:
  """The same function as `stack`; of a layer only the input is stored, the rest is computed again."""

  @jax.checkpoint
  def advance(streams, per_layer):
    return forward_layer(halves, streams, *per_layer, shared, context)[0], None

  return jax.lax.scan(advance, streams, (layers, scanned), unroll=unroll)[0]


def _alone(function: Callable, *arguments) -> Any:
  """`function(*arguments)`, compiled apart from what stands around it, so that it gives the same bits everywhere.

  XLA fuses operations with their neighbours, and rounds a fused multiplication and addition once instead of twice. The
  body of a loop has no neighbours; that this one turns once is hidden from the compiler, or it would dissolve it.
  """
  once, arguments = jax.lax.optimization_barrier((jnp.int32(1), arguments))
  nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *arguments))
  return jax.lax.fori_loop(0, once, lambda *_: function(*arguments), nothing)


def _updating(exact: bool):
  """The reversible stack that updates its layers, or has their gradients where `update` is None; an exact one computes
  each half-residual alone, in both passes, and once more backwards."""

  @partial(jax.custom_vjp, nondiff_argnums=(0, 1, 9))
  def run(halves, update, layers, kept, fixed, streams, scanned, shared, context, unroll=1):
    return stack(halves, layers, streams, scanned, shared, context, unroll)

  def make_choices(half, *arguments):
    call = lambda *arguments: half(*arguments, None)  # noqa: E731
    return _alone(call, *arguments) if exact else call(*arguments)

  def forward(halves, update, layers, kept, fixed, streams, scanned, shared, context, unroll):
    def advance(streams, per_layer):
      layer, inputs = per_layer
      choices = []
      for half in halves:
        delta, choice = make_choices(half, layer, streams[-1], inputs, shared, context)
        streams = add(streams, delta)
        choices.append(choice)
      return streams, tuple(choices)

    streams, choices = jax.lax.scan(advance, streams, (layers, scanned), unroll=unroll)
    return streams, (layers, kept, fixed, streams, scanned, shared, context, choices)

  def backward(halves, update, unroll, residuals, d_streams):
    layers, kept, fixed, streams, scanned, shared, context, choices = residuals

    def retreat(carry, per_layer):
      (a, b), (d_a, d_b), d_context = carry
      layer, inputs, layer_choices = per_layer
      d_layer = None
      for half, choice in zip(reversed(halves), reversed(layer_choices), strict=True):

        def delta_of(layer, x, context, half=half, choice=choice):
          return half(layer, x, inputs, shared, context, choice)[0]

        delta, pull_back = jax.vjp(delta_of, layer, a, context)
        if exact:
          delta, _ = make_choices(half, layer, a, inputs, shared, context)
        d_parameters, d_read, d_half_context = pull_back(d_b)
        a, b = b - delta, a
        d_a, d_b = d_b, d_a + d_read
        d_layer = d_parameters if d_layer is None else jax.tree.map(jnp.add, d_layer, d_parameters)
        d_context = jax.tree.map(jnp.add, d_context, d_half_context)
      return ((a, b), (d_a, d_b), d_context), d_layer

    def retreat_updating(carry, per_layer):
      carry, stacks = carry
      index, layer_fixed, inputs, layer_choices = per_layer
      layer, layer_kept = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), stacks)
      carry, d_layer = retreat(carry, (layer, inputs, layer_choices))
      new = update(layer, layer_kept, layer_fixed, d_layer)
      # In the carry, and not among the results of each turn, the new layers take the place of the old.
      stacks = jax.tree.map(lambda x, new: jax.lax.dynamic_update_index_in_dim(x, new, index, 0), stacks, new)
      return (carry, stacks), None

    carry = streams, d_streams, jax.tree.map(jnp.zeros_like, context)
    backwards = partial(jax.lax.scan, reverse=True, unroll=unroll)
    if update is None:
      carry, layers = backwards(retreat, carry, (layers, scanned, choices))
    else:
      indices = jnp.arange(len(jax.tree.leaves(layers)[0]))
      (carry, (layers, kept)), _ = backwards(
        retreat_updating, (carry, (layers, kept)), (indices, fixed, scanned, choices)
      )
    _, d_streams, d_context = carry
    return layers, kept, None, d_streams, None, None, d_context

  run.defvjp(forward, backward)
  return run


def _reversible(updating: Callable):
  def run(halves, layers, streams, scanned, shared, context, unroll=1):
    return updating(halves, None, layers, None, None, streams, scanned, shared, context, unroll)

  return run


# A reversible stack whose backward pass gives back, in the place of the gradients of `layers` and `kept`, what becomes
# of them: an optimiser's step, done layer by layer as the gradients come, so that those of all layers are never alive.
#
#   update(layer, kept, fixed, gradient) -> (layer, kept)
#
# is called with one layer's parameters, its part of `kept` (floats, as moments) and of `fixed` (others, as counters),
# whose arrays have a leading axis of layers, and with its gradient. A loss may contain such a stack once only: what is
# no gradient cannot be summed over its uses.
updating_stack = _updating(exact=False)

# The same function as `stack` over two streams, with memory that does not grow with the number of layers. `scanned` and
# `shared` get no gradient.
reversible_stack = _reversible(updating_stack)

# The same again for streams and half-residuals on a grid (`ops.fixed_point`), where adding and subtracting are exact:
# they recompute the streams of the forward pass bit for bit, and take a third more time. That a half-residual compiled
# alone is the same program in both passes is the compiler's doing: XLA's by default, not without its optimisations.
exact_updating_stack = _updating(exact=True)
exact_reversible_stack = _reversible(exact_updating_stack)
