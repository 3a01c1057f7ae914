"""B 2, T 7, V 20; losses of whole models are taken 3 target positions at a time, which do not divide 7."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import (
  BlockConfig,
  DenseFFConfig,
  DenseOutputConfig,
  DenseProjectionConfig,
  FullAttentionConfig,
  LanguageModelConfig,
  SparseOutputConfig,
)
from terraformer.models.make import abstract_model
from terraformer.training.loss import model_losses, token_losses
from tests.losses import mean_loss
from tests.weights import filled


def test_loss_and_accuracy_count_real_tokens_alone():
  rng = np.random.default_rng(0)
  logits_BxTxV = rng.normal(size=(2, 3, 5)).astype(np.float32)
  targets_BxT = np.array([[4, 2, 0], [1, 0, 0]])
  losses = token_losses(jnp.asarray(logits_BxTxV), jnp.asarray(targets_BxT))
  probabilities = np.exp(logits_BxTxV) / np.exp(logits_BxTxV).sum(-1, keepdims=True)
  real = [(0, 0), (0, 1), (1, 0)]
  expected = [-np.log(probabilities[b, t, targets_BxT[b, t]]) for b, t in real]
  np.testing.assert_allclose(mean_loss(losses), np.mean(expected), rtol=1e-6)
  np.testing.assert_array_equal(losses['mask'], targets_BxT != 0)
  np.testing.assert_array_equal(losses['correct_BxT'], logits_BxTxV.argmax(-1) == targets_BxT)


def test_a_batch_of_padding_has_no_loss():
  losses = token_losses(jnp.ones((1, 2, 4)), jnp.zeros((1, 2), jnp.int32))
  assert mean_loss(losses) == 0


BLOCK = BlockConfig(24, 3, DenseProjectionConfig(), DenseFFConfig(30), None, dropout=0.1)


def _model(loss_chunk):
  config = LanguageModelConfig(20, 16, decoder=BLOCK, n_layers=1, output=SparseOutputConfig(4), loss_chunk=loss_chunk)
  return filled(abstract_model(config), 0)


def _tokens():
  rng = np.random.default_rng(0)
  inputs_BxS, targets_BxT = rng.integers(1, 20, (2, 9)), rng.integers(1, 20, (2, 7))
  inputs_BxS[1, 5:] = targets_BxT[1, 4:] = 0
  return jnp.asarray(inputs_BxS), jnp.asarray(targets_BxT)


@jax.jit
def _losses_and_gradients(model, inputs_BxS, targets_BxT, key):
  def loss(model):
    losses = model_losses(model, inputs_BxS, targets_BxT, key=key)
    return mean_loss(losses), losses

  return jax.grad(loss, has_aux=True)(model)


def test_losses_are_those_of_the_logits():
  model, both = _model(0), _tokens()
  found, expected = model_losses(model, *both), token_losses(model(*both), both[1])
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


@pytest.mark.parametrize('key', [None, jax.random.key(0)], ids=['evaluation', 'training'])
def test_a_chunk_at_a_time_losses_are_the_same(key):
  # With a key as well: all noise is in the layers, before the chunks.
  (_, expected), (_, found) = (_losses_and_gradients(_model(chunk), *_tokens(), key) for chunk in (0, 3))
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


def test_a_chunk_at_a_time_gradients_are_the_same():
  expected, found = (jax.tree.leaves(_losses_and_gradients(_model(chunk), *_tokens(), None)[0]) for chunk in (0, 3))
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6)


def _temporary_bytes(loss_chunk):
  """Of the gradient of a model with 512 target positions and 8,192 words, whose logits fill 16 MB."""
  block = dataclasses.replace(BLOCK, dropout=0.0, attention=FullAttentionConfig(query_chunk=16))
  config = LanguageModelConfig(8192, 512, decoder=block, n_layers=1, output=DenseOutputConfig(), loss_chunk=loss_chunk)
  targets_BxT = jax.ShapeDtypeStruct((1, 512), jnp.int32)
  loss = lambda model, targets: mean_loss(model_losses(model, targets[:, :0], targets))  # noqa: E731
  lowered = jax.jit(jax.grad(loss)).lower(abstract_model(config), targets_BxT)
  return lowered.compile().memory_analysis().temp_size_in_bytes


def test_a_chunk_at_a_time_the_logits_of_all_positions_are_never_alive():
  assert _temporary_bytes(0) > 512 * 8192 * 4 > 2 * _temporary_bytes(16)
