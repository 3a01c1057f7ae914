"""B 2, T 9, D 24, H 3, with every noise on: dropout, Gumbel noise and the hard or soft draw."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import (
  BlockConfig,
  DenseFFConfig,
  DenseProjectionConfig,
  SparseFFConfig,
  SparseProjectionConfig,
  SRUConfig,
)
from terraformer.models.halves import Padding
from terraformer.models.stack import Stack, UnrolledStack
from tests.weights import build, filled, shapes

BLOCK = BlockConfig(24, 3, SparseProjectionConfig(4), SparseFFConfig(30, 6, 7), SRUConfig(5), dropout=0.1)


@functools.cache
def _shapes(n_layers, keep_activations):
  return shapes(lambda key: Stack(BLOCK, n_layers, 2, True, keep_activations, unroll=1, key=key))


def _streams(seed, batch=2, time=9, d_model=24):
  return tuple(jnp.asarray(np.random.default_rng(seed).normal(size=(2, batch, time, d_model)), jnp.float32))


def _padding(batch=2, time=9):
  return Padding(jnp.arange(time) < jnp.asarray([time] + [time - 3] * (batch - 1))[:, None])


@jax.jit
def _gradients(stack, streams, padding, key, cotangents):
  def loss(stack, streams):
    y = stack(streams, padding, key=key)
    return sum((one * cotangent).sum() for one, cotangent in zip(y, cotangents, strict=True)), y

  return jax.grad(loss, argnums=(0, 1), has_aux=True)(stack, streams)


@pytest.mark.parametrize('seed', range(3))
def test_reversible_gradients_are_those_of_plain_differentiation(seed):
  inputs = _streams(seed), _padding(), jax.random.key(seed), _streams(seed + 10)
  plain, reversible = (jax.tree.leaves(_gradients(filled(_shapes(12, keep), seed), *inputs)) for keep in (True, False))
  # float32 against float32, one of which recomputes its activations back through 36 half-residuals. Gradients reach 30.
  for one, other in zip(plain, reversible, strict=True):
    np.testing.assert_allclose(other, one, rtol=0, atol=5e-5 * max(1, np.abs(one).max()))


def test_noise_makes_a_difference():
  # Or the test above would not test that the backward pass repeats it.
  stack = filled(_shapes(12, False), 0)
  one, other = (_gradients(stack, _streams(0), _padding(), jax.random.key(seed), _streams(10))[1][0] for seed in (0, 1))
  assert np.abs(one - other).max() > 0.1


def test_each_half_residual_of_a_layer_has_a_draw_of_its_own():
  block = dataclasses.replace(BLOCK, dropout=0.5)
  stack = build(lambda key: Stack(block, 1, 2, True, False, unroll=1, key=key))
  layer = jax.tree.map(lambda x: x[0], stack.blocks)
  arguments = layer, _streams(0)[0], jax.random.key(0), Padding(None), None
  one, other = (half(*arguments)[0] == 0 for half in stack.halves[:2])
  assert np.any(one != other)


def _temporary_bytes(n_layers, keep_activations):
  block = BlockConfig(8, 2, DenseProjectionConfig(), DenseFFConfig(16), None, dropout=0.0)
  stack = shapes(lambda key: Stack(block, n_layers, 1, True, keep_activations, unroll=1, key=key))
  streams = (jax.ShapeDtypeStruct((4, 64, 8), jnp.float32),) * 2
  loss = lambda stack, streams: sum(y.sum() for y in stack(streams, Padding(None)))  # noqa: E731
  return jax.jit(jax.grad(loss)).lower(stack, streams).compile().memory_analysis().temp_size_in_bytes


def test_reversible_memory_hardly_grows_with_depth():
  # Parameters and their gradients are arguments and results, which are not counted.
  grown = {keep: _temporary_bytes(16, keep) - _temporary_bytes(2, keep) for keep in (True, False)}
  assert grown[False] < grown[True] / 50


def test_layers_start_from_draws_of_their_own():
  block = BlockConfig(4, 2, DenseProjectionConfig(bias=False), DenseFFConfig(2), None)
  stack = Stack(block, 2, 2, True, False, unroll=1, key=jax.random.key(0))
  one, other = (half.attention.projection.query.kernel_DxF[...] for half in stack.blocks.attentions)
  kernels = np.concatenate([one, other]).reshape(4, -1)
  assert len(np.unique(kernels, axis=0)) == 4


def test_an_unrolled_stack_is_the_same_function():
  stack = filled(_shapes(2, False), 0)
  call = jax.jit(lambda stack: stack(_streams(0), _padding()))
  np.testing.assert_allclose(call(UnrolledStack(stack)), call(stack), atol=1e-4)


@pytest.mark.parametrize('unrolled', [False, True])
def test_prefill_passes_the_streams_through_like_call(unrolled):
  stack = filled(_shapes(2, False), 0)
  expected = jax.jit(lambda stack: stack(_streams(0), Padding(None)))(stack)
  prefill = jax.jit(lambda stack, streams: stack.prefill(streams, jnp.asarray([9, 4]), 9)[0])
  found = prefill(UnrolledStack(stack) if unrolled else stack, _streams(0))
  np.testing.assert_allclose(found, expected, atol=1e-4)


def test_init_cache_has_the_structure_that_step_returns():
  stack = _shapes(2, False)
  cache = jax.eval_shape(lambda stack: stack.init_cache(2, 9), stack)
  streams = (jax.ShapeDtypeStruct((2, 24), jnp.float32),) * 2
  _, after = jax.eval_shape(lambda stack, streams, cache: stack.step(streams, cache), stack, streams, cache)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), cache)
