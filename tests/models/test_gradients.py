"""The reversible backward pass beside plain differentiation, 24 layers deep, in float32.

Measured is the largest absolute difference of any gradient, relative to the largest gradient where that is above 1, of
the mean cross-entropy in training, at initial weights: the numbers that an optimiser gets. B 2, S 9, T 7, D 24, V 20.
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

# Dropout, Gumbel noise, soft and hard draws in all; two attentions and cross-attention, through which alone the
# encoder learns; buckets that are drawn anew for each layer.
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
  """Gradients by the path of the parameter: of plain differentiation and of the reversible backward pass."""
  config = CONFIGS[name]
  keeping = dataclasses.replace(config, residual=ReversibleResidualConfig(keep_activations=True))
  reversible = _initial(config, key=jax.random.key(seed))
  plain = merge_module(split_module(abstract_model(keeping))[0], split_module(reversible)[1])
  inputs_BxS, targets_BxT = tokens(seed)
  arguments = inputs_BxS[:2], targets_BxT[:2], jax.random.key(seed + 10)
  return [flatten(split_module(_gradients(model, *arguments))[1]) for model in (plain, reversible)]


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize('seed', range(3))
def test_reversible_gradients_are_those_of_plain_differentiation(name, seed):
  plain, reversible = _both(name, seed)
  largest = max(np.abs(gradient).max() for gradient in plain.values())
  errors = {path: float(np.abs(reversible[path] - gradient).max()) for path, gradient in plain.items()}
  worst = max(errors, key=errors.get)
  assert errors[worst] <= 1e-5 * max(1, largest), worst


def test_the_encoder_learns_through_cross_attention():
  # Or the test above would not show that the memory's gradient is right.
  plain, _ = _both('encoder_decoder', 0)
  encoder = [gradient for path, gradient in plain.items() if path.startswith('encoder.blocks')]
  assert max(np.abs(gradient).max() for gradient in encoder) > 1e-2
