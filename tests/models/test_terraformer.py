"""Properties of single models, with the sizes of `examples`; `test_step` and `test_causality` test others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.examples import CONFIGS, abstract, model, tokens
from tests.weights import call, filled


@pytest.mark.parametrize('name', ['sparse', 'lsh', 'cross', 'language', 'lsh_language'])
def test_the_width_of_the_padding_does_not_matter(name):
  one, (inputs_BxS, targets_BxT) = model(CONFIGS[name]), tokens(0)
  wide, narrow = (call(one, inputs_BxS[1:, :width], targets_BxT[1:]) for width in (9, 4))
  np.testing.assert_allclose(wide, narrow, atol=1e-5)


@pytest.mark.parametrize('name', ['plain', 'forgetful', 'cross', 'language'])
def test_keys_determine_the_noise(name):
  one = model(CONFIGS[name])
  noise = [call(one, *tokens(0), key=jax.random.key(seed)) for seed in (0, 0, 1)]
  np.testing.assert_array_equal(noise[0], noise[1])
  assert np.abs(noise[0] - noise[2]).max() > 1e-2


def test_a_merged_encoder_gives_two_equal_streams_to_the_decoder():
  one = model(CONFIGS['forgetful'])
  first, second = jax.jit(lambda model, inputs_BxS: model._encode(inputs_BxS, None))(one, tokens(0)[0])
  np.testing.assert_array_equal(first, second)


def test_an_encoder_without_merge_gives_its_two_streams_to_the_decoder():
  one = model(CONFIGS['sparse'])
  first, second = jax.jit(lambda model, inputs_BxS: model._encode(inputs_BxS, None))(one, tokens(0)[0])
  assert np.abs(first - second).max() > 0.1


def test_logits_are_the_output_layer_after_the_last_normalization():
  one, both = model(CONFIGS['dense']), tokens(0)
  x_BxTxD = jax.jit(lambda model, *tokens: model.hidden(*tokens))(one, *both)
  np.testing.assert_allclose(call(one, *both), one.output(one.norm(x_BxTxD)), atol=1e-4)


@pytest.mark.parametrize('name', ['sparse', 'cross', 'language'])
def test_both_forms_of_residual_have_the_same_parameters(name):
  config = CONFIGS[name]
  plain = dataclasses.replace(config, residual=CONFIGS['plain'].residual)
  one, other = ([leaf.shape for leaf in jax.tree.leaves(abstract(each))] for each in (config, plain))
  assert one == other


@pytest.mark.parametrize('name', ['sparse', 'cross', 'language'])
def test_one_stream_and_two_are_different_functions(name):
  config = CONFIGS[name]
  plain = filled(abstract(dataclasses.replace(config, residual=CONFIGS['plain'].residual)), 0)
  assert np.abs(call(plain, *tokens(0)) - call(model(config), *tokens(0))).max() > 0.1


@pytest.mark.parametrize('name', ['plain', 'language'])
def test_a_chunked_feed_forward_block_gives_the_same_result(name):
  # 5 divides none of the lengths 9, 7 and 16.
  config = CONFIGS[name]

  @jax.jit
  def logits_and_gradients(model):
    logits_BxTxV, pull_back = jax.vjp(lambda model: model(*tokens(0)), model)
    return logits_BxTxV, pull_back(jnp.sin(logits_BxTxV))

  whole, chunked = (
    dataclasses.replace(
      config, **{stack: dataclasses.replace(one, ff_chunk=chunk) for stack, one in config.blocks.items()}
    )
    for chunk in (0, 5)
  )
  expected, found = (jax.tree.leaves(logits_and_gradients(model(each))) for each in (whole, chunked))
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5 * max(1, np.abs(other).max()))
