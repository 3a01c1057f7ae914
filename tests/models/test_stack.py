"""B 2, T 9, D 24, H 3, with all noise: dropout, Gumbel noise, and sampled hard or soft masks."""

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
  PlainResidualConfig,
  ReversibleResidualConfig,
  SRUConfig,
  TerraformerConfig,
)
from terraformer.models.residual import Residual
from terraformer.models.stack import LayerwiseStack, Stack
from terraformer.models.sublayers import SequenceMasks
from terraformer.ops.reversible import rematerialized_stack, reversible_stack, stack
from tests.models.examples import DENSE, DENSE_FF, LSH_IN_BUCKETS, SHARED_SPARSE, block
from tests.weights import build, filled, nothing_filled, shapes

BLOCK = block()
REVERSIBLE, KEEPING = ReversibleResidualConfig(), ReversibleResidualConfig(keep_activations=True)
FIXED_POINT = ReversibleResidualConfig(fixed_point=True)
PLAIN = PlainResidualConfig()


@functools.cache
def _shapes(n_layers, residual=REVERSIBLE, cross=False, n_attentions=2, config=BLOCK, unroll=1):
  model = TerraformerConfig(residual=residual, unroll=unroll)
  return shapes(lambda key: Stack(model, config, n_layers, n_attentions, causal=True, cross=cross, key=key))


def _streams(seed, count=2, time=9):
  return tuple(jnp.asarray(np.random.default_rng(seed).normal(size=(count, 2, time, 24)), jnp.float32))


def _memory(seed=0):
  """Returns a memory of 7 positions, of which 7 and 4 are real, and its mask."""
  memory_BxSxD = jnp.asarray(np.random.default_rng(seed + 20).normal(size=(2, 7, 24)), jnp.float32)
  return memory_BxSxD, SequenceMasks(None, jnp.arange(7) < jnp.asarray([[7], [4]]))


@jax.jit
def _gradients(stack, streams, masks, memory, key, cotangents):
  def loss(stack, streams, memory):
    y = stack(streams, masks, memory, key=key)
    return sum((one * cotangent).sum() for one, cotangent in zip(y, cotangents, strict=True))

  return jax.grad(loss, argnums=(0, 1, 2))(stack, streams, memory)


def _assert_close(found, expected, tolerance):
  """Asserts equality up to `tolerance`, relative to the largest entry of an array if that is above 1."""
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * max(1, np.abs(other).max()))


@pytest.mark.parametrize('seed', range(3))
def test_reversible_gradients_equal_those_of_automatic_differentiation(seed):
  memory, masks = _memory(seed)
  inputs = _streams(seed), masks, memory, jax.random.key(seed), _streams(seed + 10)
  plain, reversible = (
    _gradients(filled(_shapes(12, residual, True), seed), *inputs) for residual in (KEEPING, REVERSIBLE)
  )
  # Both are float32, but one recomputes its activations through 48 sublayers. Weights are larger than initial ones, and
  # gradients are up to 30. `test_gradients` has 24 layers at initial weights.
  _assert_close(reversible, plain, 5e-5)


def test_the_memory_has_a_gradient():
  # Otherwise, the test above would not show that it is right.
  memory, masks = _memory()
  inputs = _streams(0), masks, memory, jax.random.key(0), _streams(10)
  _, _, d_memory_BxSxD = _gradients(filled(_shapes(12, cross=True), 0), *inputs)
  np.testing.assert_array_equal(np.asarray(d_memory_BxSxD).any(-1), masks.memory_BxS)


def test_gradients_depend_on_the_noise():
  # Otherwise, that test would not show that the backward pass repeats the noise.
  memory, masks = _memory()
  one, other = (
    _gradients(filled(_shapes(12, cross=True), 0), _streams(0), masks, memory, jax.random.key(seed), _streams(10))
    for seed in (0, 1)
  )
  assert np.abs(one[1][0] - other[1][0]).max() > 0.1


def test_a_rematerialized_stack_has_the_gradients_of_a_plain_one():
  inputs = _streams(0, 1), SequenceMasks(None), None, jax.random.key(0), _streams(10, 1)
  keeping = PlainResidualConfig(keep_activations=True)
  expected, found = (_gradients(filled(_shapes(2, residual), 0), *inputs) for residual in (keeping, PLAIN))
  _assert_close(found, expected, 1e-5)


def test_a_stack_that_forgets_has_the_gradients_of_one_that_keeps_activations():
  inputs = _streams(0), SequenceMasks(None), None, jax.random.key(0), _streams(10)
  expected, found = (
    _gradients(filled(_shapes(3, dataclasses.replace(residual, forget_every=2)), 0), *inputs)
    for residual in (KEEPING, REVERSIBLE)
  )
  _assert_close(found, expected, 2e-5)


def test_unrolling_the_loop_does_not_change_the_gradients():
  # Two layers per turn do not divide three.
  inputs = _streams(0), SequenceMasks(None), None, jax.random.key(0), _streams(10)
  expected, found = (_gradients(filled(_shapes(3, unroll=unroll), 0), *inputs) for unroll in (1, 2))
  _assert_close(found, expected, 2e-5)


@pytest.mark.parametrize(
  ('residual', 'run'),
  [
    (REVERSIBLE, reversible_stack),
    (FIXED_POINT, reversible_stack),
    (KEEPING, stack),
    (PLAIN, rematerialized_stack),
    (PlainResidualConfig(keep_activations=True), stack),
  ],
)
def test_the_config_decides_whether_activations_are_stored(residual, run):
  assert _shapes(2, residual).residual.run is run


@pytest.mark.parametrize('residual', [REVERSIBLE, FIXED_POINT, KEEPING, PLAIN])
def test_a_stack_is_exact_if_its_streams_are_on_the_grid(residual):
  assert _shapes(2, residual).spec.exact == (residual is FIXED_POINT)


@pytest.mark.parametrize(
  ('residual', 'can_update'),
  [
    (REVERSIBLE, True),
    (FIXED_POINT, True),
    (ReversibleResidualConfig(forget_every=2), True),
    (ReversibleResidualConfig(forget_every=1), False),
    (KEEPING, False),
    (PLAIN, False),
  ],
)
def test_the_backward_pass_can_update_a_reversible_stack_of_one_run(residual, can_update):
  assert _shapes(2, residual).can_update == can_update


def test_each_sublayer_of_a_layer_has_its_own_noise():
  stack = build(
    lambda key: Stack(TerraformerConfig(), dataclasses.replace(BLOCK, dropout=0.5), 1, 2, causal=True, key=key)
  )
  layer = jax.tree.map(lambda x: x[0], stack.blocks)
  arguments = _streams(0)[0], jax.random.key(0), SequenceMasks(None), None, None
  one, other = (layer.delta(*arguments, number=number)[0] == 0 for number in range(2))
  assert np.any(one != other)


def test_layers_have_different_initial_values():
  config = BlockConfig(4, 2, DenseProjectionConfig(bias=False), DenseFFConfig(2), None)
  stack = Stack(TerraformerConfig(), config, 2, 2, causal=True, key=jax.random.key(0))
  one, other = (one.attention.projection.query.kernel_DxF[...] for one in stack.blocks.attentions)
  kernels = np.concatenate([one, other]).reshape(4, -1)
  assert len(np.unique(kernels, axis=0)) == 4


# --- Streams ---------------------------------------------------------------------------------------------------------


def test_a_vector_is_split_into_equal_streams_and_their_mean_is_merged():
  residual = Residual(REVERSIBLE)
  assert residual.split_streams(3.0) == (3.0, 3.0) and residual.merge_streams((3.0, 5.0)) == 4.0


def test_a_vector_is_a_plain_stream():
  residual = Residual(PLAIN)
  assert residual.split_streams(3.0) == (3.0,) and residual.merge_streams((3.0,)) == 3.0


def test_fixed_point_streams_start_on_the_grid():
  one, other = Residual(FIXED_POINT).split_streams(jnp.asarray(1 / 3))
  assert one == other == 21845 / 2**16


@pytest.mark.parametrize(
  ('n_layers', 'forget_every', 'expected'),
  [(5, 0, [(0, 5)]), (5, 2, [(0, 2), (2, 4), (4, 5)]), (4, 2, [(0, 2), (2, 4)]), (2, 3, [(0, 2)])],
)
def test_layers_forget_between_runs_of_equal_length(n_layers, forget_every, expected):
  one = _shapes(n_layers, ReversibleResidualConfig(forget_every=forget_every))
  assert [(run.start, run.stop) for run in one.layer_runs()] == expected
  assert len(jax.tree.leaves(one.forgets)) == (2 if len(expected) > 1 else 0)


def test_forget_averages_the_streams_and_applies_a_dense_layer():
  # With all kernels zero, the layers add nothing, so only `forget` has an effect.
  config = BlockConfig(24, 3, DenseProjectionConfig(bias=False), DenseFFConfig(2), None)
  one = filled(_shapes(2, ReversibleResidualConfig(forget_every=1), config=config), 0)
  one.blocks = jax.tree.map(jnp.zeros_like, one.blocks)
  a, b = _streams(0)
  kernel_DxF, bias_F = one.forgets.kernel_DxF[...][0], one.forgets.bias_F[...][0]
  mean = (a + b) / 2 @ kernel_DxF + bias_F
  # Three sublayers per layer swap the streams an odd number of times, but the streams are equal.
  for found in one((a, b), SequenceMasks(None)):
    np.testing.assert_allclose(found, mean, atol=1e-5)


# --- Fixed point -----------------------------------------------------------------------------------------------------


@jax.jit
def _delta(block, x_BxTxD, key, number):
  """Returns the delta of any sublayer of a block, from one compiled program, so equal inputs give equal bits."""
  deltas = [lambda *arguments, number=number: block.delta(*arguments, number=number)[0] for number in range(2)]
  return jax.lax.switch(number, deltas, x_BxTxD, key, SequenceMasks(None), None, None)


def _there_and_back(stack, streams, seed):
  """Returns the streams before the first layer, recomputed by hand from those after the last."""
  keys = jax.random.split(jax.random.key(seed), stack.n_layers)
  layers = [jax.tree.map(lambda x, index=index: x[index], stack.blocks) for index in range(stack.n_layers)]
  order = [(layer, key, number) for layer, key in zip(layers, keys, strict=True) for number in range(2)]
  for layer, key, number in order:
    streams = streams[1], streams[0] + _delta(layer, streams[1], key, number)
  for layer, key, number in reversed(order):
    streams = streams[1] - _delta(layer, streams[0], key, number), streams[0]
  return streams


def _deep(residual=FIXED_POINT):
  """Returns the shapes of 48 layers with all noise and LSH attention."""
  return _shapes(48, residual, n_attentions=1, config=block(SHARED_SPARSE, attention=LSH_IN_BUCKETS))


@pytest.mark.parametrize('seed', range(3))
def test_fixed_point_streams_of_48_layers_are_recomputed_bit_for_bit(seed):
  # Tests only the arithmetic: one program runs in both directions. `test_exact` has the compiled backward pass.
  start = Residual(FIXED_POINT).split_streams(_streams(seed)[0])
  found = _there_and_back(filled(_deep(), seed), start, seed)
  np.testing.assert_array_equal(np.stack(found), np.stack(start))


def test_streams_off_the_grid_are_not_recomputed_exactly():
  # Shows that the test above can fail.
  start = tuple(x + jnp.float32(1e-6) for x in Residual(FIXED_POINT).split_streams(_streams(0)[0]))
  assert np.any(np.stack(_there_and_back(filled(_deep(), 0), start, 0)) != np.stack(start))


@pytest.mark.parametrize('seed', range(3))
def test_the_delta_of_a_fixed_point_sublayer_is_on_the_grid(seed):
  one = filled(_deep(), seed)
  layer = jax.tree.map(lambda x: x[0], one.blocks)
  for number in range(2):
    delta = np.asarray(_delta(layer, _streams(seed)[0], jax.random.key(seed), number), np.float64)
    np.testing.assert_array_equal(delta * 2**16, np.rint(delta * 2**16))


def test_fixed_point_gradients_treat_rounding_as_the_identity():
  # Rounding changes streams by up to 2^-17 = 8e-6 per sublayer, and gradients of up to 10 by a few times that.
  inputs = _streams(0), SequenceMasks(None), None, jax.random.key(0), _streams(10)
  dense = block(DENSE, DENSE_FF)
  rounded, exact = (
    _gradients(filled(_shapes(2, residual, config=dense), 0), *inputs) for residual in (FIXED_POINT, KEEPING)
  )
  _assert_close(rounded, exact, 2e-4)


# --- Forms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('residual', [REVERSIBLE, PLAIN])
def test_a_layerwise_stack_is_the_same_function(residual):
  one = filled(_shapes(2, residual), 0)
  masks = SequenceMasks(jnp.arange(9) < jnp.asarray([[9], [6]]))
  call = jax.jit(lambda stack: stack(_streams(0, len(stack.residual.split_streams(0))), masks))
  np.testing.assert_allclose(call(LayerwiseStack(one)), call(one), atol=1e-4)


@pytest.mark.parametrize('unstacked', [False, True])
def test_prefill_computes_the_streams_of_call(unstacked):
  one = filled(_shapes(2), 0)
  expected = jax.jit(lambda stack: stack(_streams(0), SequenceMasks(None)))(one)
  prefill = jax.jit(lambda stack, streams: stack.prefill(streams, jnp.asarray([9, 4]), 9)[0])
  np.testing.assert_allclose(prefill(LayerwiseStack(one) if unstacked else one, _streams(0)), expected, atol=1e-4)


@pytest.mark.parametrize('cross', [False, True])
@pytest.mark.parametrize('unstacked', [False, True])
def test_init_cache_has_the_structure_that_step_returns(cross, unstacked):
  one = _shapes(3, ReversibleResidualConfig(forget_every=2), cross)
  one = jax.eval_shape(LayerwiseStack, one) if unstacked else one
  cache = jax.eval_shape(lambda stack: stack.init_cache(2, 9, *_memory()), one)
  streams = (jax.ShapeDtypeStruct((2, 24), jnp.float32),) * 2
  slots = nothing_filled(2)
  _, after = jax.eval_shape(lambda stack, streams, cache: stack.step(streams, cache, slots), one, streams, cache)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), cache)


def test_two_stacks_of_one_config_share_compiled_programs():
  model = TerraformerConfig()
  one, other = (
    shapes(lambda key: Stack(model, block(recurrence=SRUConfig(3)), 2, 1, causal=True, key=key)) for _ in '12'
  )
  assert jax.tree.structure(one) == jax.tree.structure(other)
