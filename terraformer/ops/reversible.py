"""Reversible stacks: the backward pass recomputes activations from the last layer's output (RevNet; paper, section 4).

A layer is a row of half-residuals. Each maps the streams (a, b) to (b, a + f(b)), which f alone inverts:
(a', b') comes of (b' - f(a'), a'). A half-residual is a function

  half(layer, x_BxTxD, scanned, shared, choices) -> (delta_BxTxD, choices)

of one layer's parameters, the stream that it reads, the inputs of that layer (keys), the inputs of all layers (masks),
and the discrete choices to repeat, or None to make them. The forward pass records the choices: recomputed from streams
that differ in the last bit, a few would fall otherwise, and the gradient would be that of another function.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

Half = Callable[..., tuple[jax.Array, Any]]
Streams = tuple[jax.Array, jax.Array]


def forward_layer(halves: tuple[Half, ...], streams: Streams, layer, scanned, shared) -> tuple[Streams, tuple]:
  """One layer: the new streams and the choices of each half-residual."""
  a, b = streams
  choices = []
  for half in halves:
    delta, choice = half(layer, b, scanned, shared, None)
    a, b = b, a + delta
    choices.append(choice)
  return (a, b), tuple(choices)


def stack(halves: tuple[Half, ...], layers, streams: Streams, scanned, shared, unroll: int = 1) -> Streams:
  """Runs all layers and leaves the backward pass to automatic differentiation, which stores every activation.

  Args:
    halves: the half-residuals of a layer.
    layers: pytree of the layers' parameters, each with a leading axis of layers.
    streams: the pair of residual streams, BxTxD each.
    scanned: pytree of inputs with a leading axis of layers, or None.
    shared: pytree of inputs that all layers get, or None.
    unroll: layers in one turn of the compiled loop.
  """

  def advance(streams, per_layer):
    return forward_layer(halves, streams, *per_layer, shared)[0], None

  return jax.lax.scan(advance, streams, (layers, scanned), unroll=unroll)[0]


@partial(jax.custom_vjp, nondiff_argnums=(0, 5))
def reversible_stack(halves: tuple[Half, ...], layers, streams: Streams, scanned, shared, unroll: int = 1) -> Streams:
  """The same function as `stack`, with memory that does not grow with the number of layers.

  `scanned` and `shared` get no gradient.
  """
  return stack(halves, layers, streams, scanned, shared, unroll)


def _forward(halves, layers, streams, scanned, shared, unroll):
  def advance(streams, per_layer):
    return forward_layer(halves, streams, *per_layer, shared)

  streams, choices = jax.lax.scan(advance, streams, (layers, scanned), unroll=unroll)
  return streams, (layers, streams, scanned, shared, choices)


def _backward(halves, unroll, residuals, d_streams):
  layers, streams, scanned, shared, choices = residuals

  def retreat(carry, per_layer):
    (a, b), (d_a, d_b) = carry
    layer, inputs, layer_choices = per_layer
    d_layer = None
    for half, choice in zip(reversed(halves), reversed(layer_choices), strict=True):
      delta, pull_back = jax.vjp(lambda p, x, h=half, c=choice: h(p, x, inputs, shared, c)[0], layer, a)
      d_parameters, d_read = pull_back(d_b)
      a, b = b - delta, a
      d_a, d_b = d_b, d_a + d_read
      d_layer = d_parameters if d_layer is None else jax.tree.map(jnp.add, d_layer, d_parameters)
    return ((a, b), (d_a, d_b)), d_layer

  per_layer = (layers, scanned, choices)
  (_, d_streams), d_layers = jax.lax.scan(retreat, (streams, d_streams), per_layer, reverse=True, unroll=unroll)
  return d_layers, d_streams, None, None


reversible_stack.defvjp(_forward, _backward)
