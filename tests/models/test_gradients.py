"""The reversible backward pass compared with automatic differentiation, 24 layers deep, in float32.

We compare gradients of the mean cross-entropy in training at initial weights, which are the numbers that an optimizer
gets. The error is the largest absolute difference, relative to the largest gradient if that is above 1. B 2, S 9, T 7,
D 24, V 20.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from terraformer.config import EncoderDecoderConfig, LanguageModelConfig, ReversibleResidualConfig
from terraformer.models.make import abstract_model, make_model
from terraformer.models.parameters import flatten, merge_module, split_module
from terraformer.training.loss import model_losses
from tests.losses import mean_loss
from tests.models.examples import DENSE, LSH_IN_BUCKETS, SHARED_SPARSE, block, tokens

# Both models have dropout, Gumbel noise, and soft and hard masks. One has two attentions and cross-attention, the only
# path by which the encoder learns; the other has new hashes in every layer.
CONFIGS = {
  'encoder_decoder': EncoderDecoderConfig(
    20,
    9,
    n_encoder_layers=24,
    n_decoder_layers=24,
    n_decoder_attentions=2,
    encoder=block(DENSE),
    decoder=block(),
  ),
  'language_model': LanguageModelConfig(20, 16, n_layers=24, decoder=block(SHARED_SPARSE, attention=LSH_IN_BUCKETS)),
}


@jax.jit
def _gradients(model, inputs_BxS, targets_BxT, key):
  loss = lambda model: mean_loss(model_losses(model, inputs_BxS, targets_BxT, key=key))  # noqa: E731
  return jax.grad(loss)(model)


_initial = jax.jit(make_model, static_argnums=0)


@functools.cache
def _both(name, seed):
  """Returns gradients by path, from automatic differentiation and from the reversible backward pass."""
  config = CONFIGS[name]
  keeping = dataclasses.replace(config, residual=ReversibleResidualConfig(keep_activations=True))
  reversible = _initial(config, key=jax.random.key(seed))
  plain = merge_module(split_module(abstract_model(keeping))[0], split_module(reversible)[1])
  inputs_BxS, targets_BxT = tokens(seed)
  arguments = inputs_BxS[:2], targets_BxT[:2], jax.random.key(seed + 10)
  return [flatten(split_module(_gradients(model, *arguments))[1]) for model in (plain, reversible)]


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize('seed', range(3))
def test_reversible_gradients_equal_those_of_automatic_differentiation(name, seed):
  plain, reversible = _both(name, seed)
  largest = max(np.abs(gradient).max() for gradient in plain.values())
  errors = {path: float(np.abs(reversible[path] - gradient).max()) for path, gradient in plain.items()}
  worst = max(errors, key=errors.get)
  assert errors[worst] <= 1e-5 * max(1, largest), worst


def test_the_encoder_learns_through_cross_attention():
  # Otherwise, the test above would not show that the memory's gradient is right.
  plain, _ = _both('encoder_decoder', 0)
  encoder = [gradient for path, gradient in plain.items() if path.startswith('encoder.blocks')]
  assert max(np.abs(gradient).max() for gradient in encoder) > 1e-2
