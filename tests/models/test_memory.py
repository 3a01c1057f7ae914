"""Temporary memory of a training step's gradient, as reported by the compiler; nothing runs.

Parameters and gradients are arguments and results, which do not count. B 8, T 256, D 64, d_ff 384 in M 6 blocks. A
layer records 6 bytes of routing per token, next to 64 floats, the same ratio as in the paper's 800M model (96, 1024).
"""

import functools

import jax
import jax.numpy as jnp

from terraformer.config import (
  BlockConfig,
  FullAttentionConfig,
  LanguageModelConfig,
  PlainResidualConfig,
  ReversibleResidualConfig,
  SparseFFConfig,
  SparseProjectionConfig,
  SRUConfig,
)
from terraformer.training.loss import model_losses
from tests.losses import mean_loss
from tests.models.examples import abstract

BLOCK = BlockConfig(64, 4, SparseProjectionConfig(8), SparseFFConfig(384, 64, 6), SRUConfig(8), dropout=0.1)


@functools.cache
def _temporary_bytes(n_layers, residual, block=BLOCK):
  model = abstract(LanguageModelConfig(64, 256, n_layers=n_layers, decoder=block, residual=residual))

  @jax.jit
  def gradients(model, targets_BxT, key):
    return jax.grad(lambda model: mean_loss(model_losses(model, targets_BxT[:, :0], targets_BxT, key=key)))(model)

  targets_BxT = jax.ShapeDtypeStruct((8, 256), jnp.int32)
  lowered = gradients.lower(model, targets_BxT, jax.eval_shape(jax.random.key, 0))
  return lowered.compile().memory_analysis().temp_size_in_bytes


def _growth(residual):
  return _temporary_bytes(48, residual) / _temporary_bytes(4, residual)


def test_reversible_memory_hardly_grows_with_depth():
  assert _growth(ReversibleResidualConfig()) < 1.05


def test_reversible_memory_grows_by_the_recorded_routing():
  # One byte per block and token, and the random keys of the layers.
  grown = _temporary_bytes(48, ReversibleResidualConfig()) - _temporary_bytes(4, ReversibleResidualConfig())
  routing = 44 * 8 * 256 * 6
  assert routing <= grown < 1.05 * routing


def test_plain_memory_grows_in_proportion():
  assert _growth(PlainResidualConfig(keep_activations=True)) > 5


def test_reversible_memory_with_activations_kept_grows_in_proportion():
  assert _growth(ReversibleResidualConfig(keep_activations=True)) > 5


def test_plain_memory_grows_by_one_stream_per_layer():
  grown = _temporary_bytes(48, PlainResidualConfig()) - _temporary_bytes(4, PlainResidualConfig())
  stream = 44 * 8 * 256 * 64 * 4
  assert stream <= grown < 1.05 * stream


def _with_many_units(ff_chunk):
  """Returns the temporary memory of a layer whose 4,096 units need most of it; attention is in chunks as well."""
  block = BlockConfig(
    16, 2, feed_forward=SparseFFConfig(4096, 64, 4), attention=FullAttentionConfig(query_chunk=16), ff_chunk=ff_chunk
  )
  return _temporary_bytes(1, ReversibleResidualConfig(), block)


def test_the_units_of_only_one_chunk_of_tokens_are_in_memory():
  units = 8 * 256 * 4096 * 4
  assert _with_many_units(0) > units > 2 * _with_many_units(4)
