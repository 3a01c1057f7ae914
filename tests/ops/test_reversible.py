"""A stack of L 4 layers of two simple sublayers, B 2, T 5, D 6.

The sublayers add a constant of 512 to the streams, so recomputation loses the last bits of every entry. They select one
of two weights by the parity of floor(1e5 x), so a recomputed choice is as random as a coin flip.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.ops.reversible import (
  LayerUpdate,
  StackInputs,
  StackSpec,
  add,
  apply_layer,
  rematerialized_stack,
  reversible_stack,
  stack,
  updating_stack,
)

L, B, T, D = 4, 2, 5, 6


def _sublayer(records=True):
  def apply(layer, x_BxTxD, scanned, shared, context, routing, *, number):
    name = ('first', 'second')[number]
    if routing is None or not records:
      routing = (jnp.floor(x_BxTxD.sum(-1) * 1e5) % 2).astype(jnp.int32)
    keep_BxTx1 = jax.random.bernoulli(jax.random.fold_in(scanned, len(name)), 0.8, (B, T, 1))
    y_BxTxD = jnp.sin(x_BxTxD) @ layer[f'mix_{name}'] * layer[name][routing] * keep_BxTx1
    return y_BxTxD * shared[..., None] * jnp.cos(context) + 512, routing

  return apply


def _arguments(seed, n_streams=2):
  rng = np.random.default_rng(seed)
  layers = {name: rng.normal(size=(L, 2, D)) for name in ('first', 'second')}
  layers |= {f'mix_{name}': rng.normal(size=(L, D, D)) * 0.2 for name in ('first', 'second')}
  streams, cotangents = (tuple(rng.normal(size=(n_streams, B, T, D))) for _ in range(2))
  shared_BxT, context_BxTxD = rng.random((B, T)) < 0.8, rng.normal(size=(B, T, D))
  *arrays, cotangents = jax.tree.map(
    lambda x: jnp.asarray(x, jnp.float32), (layers, streams, shared_BxT, context_BxTxD, cotangents)
  )
  layers, streams, shared_BxT, context_BxTxD = arrays
  return layers, streams, jax.random.split(jax.random.key(seed), L), shared_BxT, context_BxTxD, cotangents


def _gradients(run, records=True, **spec):
  spec = StackSpec(_sublayer(records), 2, **spec)

  def loss(layers, streams, keys_L, shared_BxT, context_BxTxD, cotangents):
    y = run(spec, StackInputs(layers, keys_L, shared_BxT, context_BxTxD), streams)
    return sum((y * cotangent).sum() for y, cotangent in zip(y, cotangents, strict=True))

  return jax.jit(jax.grad(loss, argnums=(0, 1, 4)))


plain = _gradients(stack)
rematerialized = _gradients(rematerialized_stack)
reversible = _gradients(reversible_stack)
forgetful = _gradients(reversible_stack, records=False)
unrolled = _gradients(reversible_stack, unroll=3)


def largest_difference(one, other):
  return max(np.abs(x - y).max() for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


exact = pytest.mark.parametrize('exact', [False, True], ids=['', 'exact'])


@exact
@pytest.mark.parametrize('run', [reversible_stack, rematerialized_stack])
def test_the_value_equals_that_of_the_plain_stack(run, exact):
  layers, streams, *others, _ = _arguments(0)
  inputs, spec = StackInputs(layers, *others), StackSpec(_sublayer(), 2, exact=exact)
  for one, other in zip(run(spec, inputs, streams), stack(spec, inputs, streams), strict=True):
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('seed', range(3))
def test_the_gradient_is_that_of_the_recorded_choices(seed):
  # Streams up to 2,000, which the sublayers read, are recomputed to about 1e-3; gradients are of order 1 to 10.
  assert largest_difference(plain(*_arguments(seed)), reversible(*_arguments(seed))) < 2e-2


@pytest.mark.parametrize('seed', range(3))
def test_new_choices_would_give_another_gradient(seed):
  # Shows that the test above can fail: without recorded routing, the same layers are far off.
  assert largest_difference(plain(*_arguments(seed)), forgetful(*_arguments(seed))) > 0.5


@pytest.mark.parametrize('seed', range(3))
def test_unrolling_the_loop_does_not_change_the_gradient(seed):
  # Three layers per turn do not divide four; rounding differs as above.
  assert largest_difference(plain(*_arguments(seed)), unrolled(*_arguments(seed))) < 2e-2


@pytest.mark.parametrize('n_streams', [1, 2])
def test_rematerializing_does_not_change_the_gradient(n_streams):
  # It starts from the stored streams, so the choices are the same, and only the order of sums changes the rounding.
  arguments = _arguments(0, n_streams)
  assert largest_difference(plain(*arguments), rematerialized(*arguments)) < 1e-4


@pytest.mark.parametrize('exact', [False, True])
def test_streams_exchanged_after_each_layer_have_the_gradient_of_the_plain_stack(exact):
  one, other = (_gradients(run, exchange=True, exact=exact) for run in (stack, reversible_stack))
  assert largest_difference(one(*_arguments(0)), other(*_arguments(0))) < 2e-2


def test_exchanged_streams_are_in_reverse_order():
  layers, streams, *others, _ = _arguments(0)
  layer = StackInputs(*jax.tree.map(lambda x: x[0], (layers, others[0])), *others[1:])
  usual, exchanged = (
    apply_layer(StackSpec(_sublayer(), 2, exchange=exchange), layer, streams)[0] for exchange in (False, True)
  )
  for one, other in zip(usual, exchanged[::-1], strict=True):
    np.testing.assert_array_equal(one, other)


def test_streams_swap_after_every_sublayer():
  spec = StackSpec(lambda *_, number: (jnp.full((1, 1, 1), (10.0, 100.0)[number]), None), 2)
  streams = jnp.ones((1, 1, 1)), 2 * jnp.ones((1, 1, 1))
  # (a, b) -> (b, a + 10) -> (a + 10, b + 100)
  a, b = stack(spec, StackInputs(jnp.zeros(1)), streams)
  assert (a.item(), b.item()) == (11, 102)


def test_with_one_stream_a_sublayer_reads_the_sum_of_the_previous_one():
  spec = StackSpec(lambda layer, x, *_, number: ((10, 100)[number] * x, None), 2)
  # x -> 11 x -> 1111 x
  (x,) = stack(spec, StackInputs(jnp.zeros(1)), (jnp.ones((1, 1, 1)),))
  assert x.item() == 1111


def test_a_delta_is_added_to_the_first_stream_which_becomes_the_last():
  assert add((1, 2), 10) == (2, 11) and add((1,), 10) == (11,)


def test_a_stack_without_keys_padding_or_context_has_a_gradient():
  # Three Nones instead of arrays.
  spec = StackSpec(lambda layer, x, *_, number: (layer * jnp.sin(x), None), 1)
  layers, streams = jnp.asarray([0.3, 0.5]), (jnp.ones((1, 1, 1)), 2 * jnp.ones((1, 1, 1)))

  @functools.partial(jax.grad, argnums=(1, 2))
  def gradients(run, layers, streams):
    return sum(y.sum() for y in run(spec, StackInputs(layers), streams))

  one, other = gradients(stack, layers, streams), gradients(reversible_stack, layers, streams)
  assert largest_difference(one, other) < 1e-6


@exact
def test_layers_are_updated_with_their_gradients(exact):
  layers, *arguments = _arguments(0)
  moments_L, counters_L = jnp.arange(4.0), jnp.arange(4)

  def update(layer, moments, counters, gradient):
    return jax.tree.map(lambda x, d: x - counters * d, layer, gradient), moments + counters + gradient['first'].sum()

  def updating(spec, inputs, streams):
    layers, moments_L = inputs.layers
    update_L = LayerUpdate(update, moments_L, counters_L)
    return updating_stack(spec, inputs.with_layers(layers, inputs.scanned), streams, update_L)

  d_layers, *others = _gradients(reversible_stack, exact=exact)(layers, *arguments)
  found = _gradients(updating, exact=exact)((layers, moments_L), *arguments)
  stepped = jax.tree.map(lambda x, d: x - counters_L[:, None, None] * d, layers, d_layers)
  # The order of a sum of 12 gradients differs.
  assert largest_difference(found, ((stepped, moments_L + counters_L + d_layers['first'].sum((1, 2))), *others)) < 1e-3
