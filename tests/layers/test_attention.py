"""B 3, T 9, D 24, H 3; the prefix has 5 positions, of which 5, 2 and 0 are real. `reference/check.py` checks more."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import (
  BlockConfig,
  DenseProjectionConfig,
  FullAttentionConfig,
  ModularProjectionConfig,
  SparseProjectionConfig,
)
from terraformer.layers.attention import Attention
from terraformer.ops.cache_slots import prompt_slots
from terraformer.ops.kv_cache import extend_caches
from tests.weights import build, call, nothing_filled, shapes, step, steps

PROJECTIONS = {
  'dense': DenseProjectionConfig(),
  'sparse': SparseProjectionConfig(4, 3, 3),
  'sparse_output': SparseProjectionConfig(4, 3, 3, output_multiplicative=True, output_convolution=True),
  'sparse_values': SparseProjectionConfig(4, 3, 3, value_reads_input=True, share_qk=True),
  'modular': ModularProjectionConfig(4),
}
LENGTH_B = jnp.asarray([5, 2, 0])
by_projection = pytest.mark.parametrize('projection', PROJECTIONS)
by_two_projections = pytest.mark.parametrize('projection', ['dense', 'sparse_output'])
by_seed = pytest.mark.parametrize('seed', range(3))


def _layer_and_input(projection, seed=0, causal=True, query_chunk=0, dropout=0.0):
  attention = FullAttentionConfig(query_chunk, dropout)
  config = BlockConfig(d_model=24, n_heads=3, projection=PROJECTIONS[projection], attention=attention)
  layer = build(lambda key: Attention(config, causal, key=key), seed)
  return layer, np.random.default_rng(seed).normal(size=(3, 9, 24)).astype(np.float32)


@functools.partial(jax.jit, static_argnames='prefix')
def _call_and_steps(layer, x_BxTxD, length_B, prefix):
  """Returns the results of `__call__` from position `length_B` on, and those of steps after a prefill."""
  cache = layer.init_cache(*x_BxTxD.shape[:2])
  if prefix:
    _, cache = layer.prefill(x_BxTxD[:, :prefix], length_B, x_BxTxD.shape[1])
  position_BxT = length_B[:, None] + jnp.arange(x_BxTxD.shape[1] - prefix)
  rest_BxTxD = jnp.take_along_axis(x_BxTxD, position_BxT[..., None], axis=1)
  stepped_BxTxD, _ = steps(layer, rest_BxTxD, cache, prompt_slots(length_B, prefix))
  called_BxTxD = jnp.take_along_axis(layer(x_BxTxD)[0], position_BxT[..., None], axis=1)
  return called_BxTxD, stepped_BxTxD


@by_projection
@by_seed
def test_step_equals_call(projection, seed):
  layer, x_BxTxD = _layer_and_input(projection, seed)
  called, stepped = _call_and_steps(layer, x_BxTxD, jnp.zeros(3, jnp.int32), 0)
  np.testing.assert_allclose(stepped, called, atol=1e-4)


@by_projection
@by_seed
def test_steps_after_prefill_equal_call(projection, seed):
  layer, x_BxTxD = _layer_and_input(projection, seed)
  called, stepped = _call_and_steps(layer, x_BxTxD, LENGTH_B, 5)
  np.testing.assert_allclose(stepped, called, atol=1e-4)


@functools.partial(jax.jit, static_argnames='capacity')
def _prefill(layer, x_BxTxD, length_B, capacity):
  return layer.prefill(x_BxTxD, length_B, capacity)


@by_two_projections
def test_prefill_attends_like_call(projection):
  layer, x_BxTxD = _layer_and_input(projection)
  np.testing.assert_allclose(_prefill(layer, x_BxTxD, LENGTH_B, 12)[0], call(layer, x_BxTxD)[0], atol=1e-5)


@by_two_projections
def test_init_cache_has_the_structure_of_prefill_and_step(projection):
  layer = shapes(lambda key: Attention(BlockConfig(24, 3, PROJECTIONS[projection]), True, key=key))
  cache = jax.eval_shape(lambda layer: layer.init_cache(3, 9), layer)
  x_BxTxD = jax.ShapeDtypeStruct((3, 5, 24), jnp.float32)
  _, filled = jax.eval_shape(lambda layer, x: layer.prefill(x, jnp.zeros(3, jnp.int32), 9), layer, x_BxTxD)
  slots = nothing_filled(3)
  _, after = jax.eval_shape(lambda layer, x, cache: layer.step(x[:, 0], cache, slots), layer, x_BxTxD, cache)
  describe = lambda cache: jax.tree.map(lambda x: (x.shape, x.dtype), cache)  # noqa: E731
  assert describe(cache) == describe(filled) == describe(after)


@by_two_projections
def test_an_extended_cache_equals_a_larger_cache(projection):
  layer, x_BxTxD = _layer_and_input(projection)
  length_B = jnp.asarray([5, 3, 1])
  small, large = (_prefill(layer, x_BxTxD[:, :5], length_B, capacity)[1] for capacity in (6, 12))
  jax.tree.map(np.testing.assert_array_equal, extend_caches(small, 6), large)
  (y_small, _), (y_large, _) = (
    step(layer, x_BxTxD[:, 5], cache, prompt_slots(length_B, 5)) for cache in (small, large)
  )
  np.testing.assert_allclose(y_small, y_large, atol=1e-6)


@pytest.mark.parametrize('batch', [1, 3])
def test_a_step_makes_no_copy_of_its_cache(batch):
  layer, _ = _layer_and_input('dense')
  cache = jax.eval_shape(lambda: layer.init_cache(batch, 50_000))
  x_BxD = jax.ShapeDtypeStruct((batch, 24), jnp.float32)
  advance = jax.jit(lambda layer, x_BxD, cache, filled: layer.step(x_BxD, cache, filled), donate_argnums=2)
  compiled = advance.lower(layer, x_BxD, cache, nothing_filled(batch)).compile(
    compiler_options={'xla_backend_optimization_level': 3}
  )
  assert compiled.memory_analysis().temp_size_in_bytes < 4 * cache.kv.k.size


@by_two_projections
@pytest.mark.parametrize('causal', [True, False])
def test_no_position_sees_padding(projection, causal):
  layer, x_BxTxD = _layer_and_input(projection, causal=causal)
  real_BxT = np.arange(9) < np.asarray([[9], [6], [1]])
  other_BxTxD = np.where(real_BxT[..., None], x_BxTxD, 7)
  one, other = (call(layer, x, real_BxT=real_BxT)[0] for x in (x_BxTxD, other_BxTxD))
  np.testing.assert_array_equal(np.asarray(one)[real_BxT], np.asarray(other)[real_BxT])


@jax.jit
def _influence_on_position_3(layer, x_BxTxD):
  return jax.grad(lambda x: layer(x)[0][:, 3].sum())(x_BxTxD)


@by_projection
@pytest.mark.parametrize('causal', [True, False])
def test_only_a_causal_layer_ignores_later_positions(projection, causal):
  layer, x_BxTxD = _layer_and_input(projection, causal=causal)
  d_x_BxTxD = np.asarray(_influence_on_position_3(layer, x_BxTxD))
  np.testing.assert_array_equal(d_x_BxTxD.any((0, 2)), (np.arange(9) <= 3) | (not causal))


@jax.jit
def _value_and_gradients(layer, x_BxTxD, real_BxT):
  def loss(layer, x_BxTxD):
    y_BxTxD, _ = layer(x_BxTxD, real_BxT=real_BxT)
    return jnp.sin(y_BxTxD).sum(), y_BxTxD

  (_, y_BxTxD), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(layer, x_BxTxD)
  return y_BxTxD, gradients


@pytest.mark.parametrize('causal', [True, False])
def test_attention_in_chunks_of_queries_gives_the_same_result(causal):
  # Chunks of 4 do not divide 9 queries.
  real_BxT = np.arange(9) < np.asarray([[9], [6], [1]])
  found, expected = (
    jax.tree.leaves(_value_and_gradients(*_layer_and_input('dense', causal=causal, query_chunk=chunk), real_BxT))
    for chunk in (4, 0)
  )
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_attention_weights_are_dropped_in_training():
  layer, x_BxTxD = _layer_and_input('dense', dropout=1.0)
  projected, _ = call(layer, x_BxTxD, key=jax.random.key(0))
  np.testing.assert_array_equal(projected, np.broadcast_to(layer.projection.output.bias_F[...], projected.shape))


def _temporary_bytes(query_chunk):
  """Returns the temporary memory of a gradient over 1 x 1024 positions and 2 heads, with 8 MB of scores."""
  config = BlockConfig(8, 2, DenseProjectionConfig(), attention=FullAttentionConfig(query_chunk))
  layer = shapes(lambda key: Attention(config, True, key=key))
  x_BxTxD = jax.ShapeDtypeStruct((1, 1024, 8), jnp.float32)
  gradients = jax.jit(jax.grad(lambda layer, x: jnp.sin(layer(x)[0]).sum(), argnums=(0, 1)))
  return gradients.lower(layer, x_BxTxD).compile().memory_analysis().temp_size_in_bytes


def test_only_one_chunk_of_scores_is_in_memory():
  assert _temporary_bytes(0) > 2 * 1024**2 * 4 > 4 * _temporary_bytes(32)
