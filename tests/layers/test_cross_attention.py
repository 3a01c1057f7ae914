"""B 3, T 9 queries, S 7 keys of which 7, 4 and 1 are real, D 24, H 3."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import (
  BlockConfig,
  DenseProjectionConfig,
  FullAttentionConfig,
  LSHAttentionConfig,
  ModularProjectionConfig,
  SparseProjectionConfig,
)
from terraformer.layers.cross_attention import CrossAttention
from terraformer.ops.attention import dot_product_attention
from tests.weights import build, call, shapes

PROJECTIONS = {
  'dense': DenseProjectionConfig(),
  'sparse': SparseProjectionConfig(4, 3, 3),
  'sparse_output': SparseProjectionConfig(4, 3, 3, output_multiplicative=True, output_convolution=True),
  'sparse_values': SparseProjectionConfig(4, 3, 3, value_reads_input=True, share_qk=True),
  'modular': ModularProjectionConfig(4),
  'shared': DenseProjectionConfig(share_qk=True),
}
FULL = FullAttentionConfig()
REAL_BXS = np.arange(7) < np.asarray([[7], [4], [1]])
by_projection = pytest.mark.parametrize('projection', PROJECTIONS)


def _layer(projection='dense', seed=0, attention=FULL):
  config = BlockConfig(24, 3, PROJECTIONS[projection], attention=attention)
  return build(lambda key: CrossAttention(config, key=key), seed)


def _inputs(seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(3, 9, 24)).astype(np.float32), rng.normal(size=(3, 7, 24)).astype(np.float32)


@jax.jit
def _steps(layer, x_BxTxD, memory_BxSxD, real_BxS):
  cache = layer.init_cache(memory_BxSxD, real_BxS)
  _, y_TxBxD = jax.lax.scan(lambda cache, x_BxD: layer.step(x_BxD, cache)[::-1], cache, x_BxTxD.swapaxes(0, 1))
  return y_TxBxD.swapaxes(0, 1)


@by_projection
@pytest.mark.parametrize('seed', range(3))
def test_step_equals_call(projection, seed):
  layer, inputs = _layer(projection, seed), _inputs(seed)
  np.testing.assert_allclose(_steps(layer, *inputs, REAL_BXS), call(layer, *inputs, REAL_BXS), atol=1e-4)


def test_queries_come_from_the_sequence_and_keys_and_values_from_the_memory():
  layer, (x_BxTxD, memory_BxSxD) = _layer(), _inputs()
  p = layer.projection
  q, k, v = (
    np.stack(np.split(np.asarray(x), 3, axis=-1), axis=2)
    for x in (p.query(x_BxTxD), p.key(memory_BxSxD), p.value(memory_BxSxD))
  )
  heads_BxTxHxK = dot_product_attention(q, k.swapaxes(1, 2), v.swapaxes(1, 2), REAL_BXS[:, None])
  expected = p.output(heads_BxTxHxK.reshape(3, 9, 24))
  np.testing.assert_allclose(call(layer, x_BxTxD, memory_BxSxD, REAL_BXS), expected, atol=1e-5)


@by_projection
def test_no_query_sees_padding_of_the_memory(projection):
  layer, (x_BxTxD, memory_BxSxD) = _layer(projection), _inputs()
  other_BxSxD = np.where(REAL_BXS[..., None], memory_BxSxD, 7)
  one, other = (call(layer, x_BxTxD, memory, REAL_BXS) for memory in (memory_BxSxD, other_BxSxD))
  np.testing.assert_array_equal(one, other)


def test_every_query_sees_the_whole_memory():
  layer, (x_BxTxD, memory_BxSxD) = _layer(), _inputs()
  jacobian = jax.jit(jax.jacrev(lambda memory: layer(x_BxTxD[:1], memory, REAL_BXS[1:2]).sum((0, 2))))
  seen_TxS = np.asarray(jacobian(memory_BxSxD[1:2])).any((1, 3))
  np.testing.assert_array_equal(seen_TxS, np.broadcast_to(REAL_BXS[1], (9, 7)))


@jax.jit
def _value_and_gradients(layer, x_BxTxD, memory_BxSxD):
  def loss(*arguments):
    y_BxTxD = arguments[0](*arguments[1:], REAL_BXS)
    return jnp.sin(y_BxTxD).sum(), y_BxTxD

  return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(layer, x_BxTxD, memory_BxSxD)


# Chunks of 4 do not divide 9 queries. With LSH attention, cross-attention does not hash, but uses its chunk length.
@pytest.mark.parametrize('attention', [FullAttentionConfig(query_chunk=4), LSHAttentionConfig(chunk_length=4)])
def test_attention_in_chunks_of_queries_gives_the_same_result(attention):
  found, expected = (
    jax.tree.leaves(_value_and_gradients(_layer('shared', attention=kind), *_inputs())) for kind in (attention, FULL)
  )
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, atol=2e-5)


def test_attention_weights_are_dropped_in_training():
  layer = _layer(attention=FullAttentionConfig(dropout=1.0))
  projected = call(layer, *_inputs(), None, key=jax.random.key(0))
  np.testing.assert_array_equal(projected, np.broadcast_to(layer.projection.output.bias_F[...], projected.shape))


def _temporary_bytes(query_chunk):
  """Returns the temporary memory of a gradient with 1024 queries and keys and 2 heads, with 8 MB of scores."""
  config = BlockConfig(8, 2, DenseProjectionConfig(), attention=FullAttentionConfig(query_chunk))
  layer = shapes(lambda key: CrossAttention(config, key=key))
  x_BxTxD = jax.ShapeDtypeStruct((1, 1024, 8), jnp.float32)
  gradients = jax.jit(jax.grad(lambda layer, x, memory: jnp.sin(layer(x, memory, None)).sum(), argnums=(0, 1, 2)))
  return gradients.lower(layer, x_BxTxD, x_BxTxD).compile().memory_analysis().temp_size_in_bytes


def test_only_one_chunk_of_scores_is_in_memory():
  assert _temporary_bytes(0) > 2 * 1024**2 * 4 > 4 * _temporary_bytes(32)
