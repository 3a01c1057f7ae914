"""A prefill and steps give the logits of `__call__`, in every model of `examples`."""

import numpy as np
import pytest

from terraformer.models.make import layerwise
from tests.models.examples import CONFIGS, LANGUAGE_MODELS, model, steps, tokens
from tests.weights import call


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize('seed', range(3))
def test_prefill_and_steps_equal_call(name, seed):
  one, both = model(CONFIGS[name], seed), tokens(seed)
  # In `__call__`, LSH attention hides the padding after a target; steps read it as tokens.
  real_BxT = np.asarray(both[1]) != 0
  np.testing.assert_allclose(steps(one, *both)[real_BxT], call(one, *both)[real_BxT], atol=1e-4)


# Models with `forget` layers, with cross-attention, and with one stream.
@pytest.mark.parametrize('name', ['forgetful', 'lsh_cross', 'plain_language'])
def test_a_layerwise_model_takes_the_same_steps(name):
  one, both = model(CONFIGS[name]), tokens(0)
  np.testing.assert_allclose(steps(layerwise(one), *both), steps(one, *both), atol=1e-4)


def test_a_layerwise_model_is_the_same_function():
  one, both = model(CONFIGS['lsh_cross']), tokens(0)
  np.testing.assert_allclose(call(layerwise(one), *both), call(one, *both), atol=1e-4)


@pytest.mark.parametrize('name', LANGUAGE_MODELS)
def test_a_language_model_needs_no_source(name):
  one, (inputs_BxS, targets_BxT) = model(LANGUAGE_MODELS[name]), tokens(0)
  stepped, called = (run(one, inputs_BxS[:2, :0], targets_BxT[:2]) for run in (steps, call))
  np.testing.assert_allclose(stepped, called, atol=1e-4)


@pytest.mark.parametrize('name', ['language', 'plain_lsh_language'])
def test_a_source_of_padding_is_no_source(name):
  one, (inputs_BxS, targets_BxT) = model(LANGUAGE_MODELS[name]), tokens(0)
  found, expected = call(one, 0 * inputs_BxS[:2], targets_BxT[:2]), call(one, inputs_BxS[:2, :0], targets_BxT[:2])
  np.testing.assert_allclose(found, expected, atol=1e-5)
