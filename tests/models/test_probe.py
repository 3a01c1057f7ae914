"""Counts of the units that controllers select."""

import jax
import numpy as np
import pytest

from terraformer import config as c
from terraformer.models.make import make_model
from terraformer.models.probe import unit_counts
from terraformer.models.sublayers import SequenceMasks
from terraformer.training.diagnostics import unit_usage

BLOCK = c.BlockConfig(16, 2, c.SparseProjectionConfig(4), c.SparseFFConfig(32, 8, 4), ff_chunk=3)
LAYERS = {'n_encoder_layers': 2, 'n_decoder_layers': 3, 'encoder': BLOCK, 'decoder': BLOCK}
STACKS = {
  'terraformer': c.TerraformerConfig(40, 32, **LAYERS),
  'encoder-decoder': c.EncoderDecoderConfig(40, 32, **LAYERS),
  'language model': c.LanguageModelConfig(40, 32, n_layers=3, decoder=BLOCK),
}


@pytest.fixture(params=STACKS)
def counted(request):
  """Returns the name of a model, the model, inputs, targets, and the counts."""
  config = STACKS[request.param]
  model = make_model(config, key=jax.random.key(0))
  rng = np.random.default_rng(0)
  inputs, targets = rng.integers(1, 40, (3, 9)), rng.integers(1, 40, (3, 7))
  inputs[0, 4:], targets[1, 2:] = 0, 0
  count = jax.jit(lambda inputs, targets: unit_counts(model, inputs, targets))
  return request.param, model, inputs, targets, count(inputs, targets)


def test_every_real_token_selects_one_unit_of_each_block(counted):
  name, model, inputs, targets, counts = counted
  n_inputs, n_targets = (inputs != 0).sum(), (targets != 0).sum()
  tokens = {
    'terraformer': {'encoder': n_inputs, 'decoder': n_inputs + n_targets},
    'encoder-decoder': {'encoder': n_inputs, 'decoder': n_targets},
    'language model': {'decoder': n_inputs + n_targets},
  }[name]
  assert counts.keys() == tokens.keys()
  for stack, counts_LxMxN in counts.items():
    assert counts_LxMxN.shape == (2 if stack == 'encoder' else 3, 4, 8)
    np.testing.assert_array_equal(counts_LxMxN.sum(-1), tokens[stack])


def test_the_first_layer_selects_the_units_with_the_largest_logits():
  config = c.LanguageModelConfig(40, 32, n_layers=2, decoder=BLOCK)
  model = make_model(config, key=jax.random.key(0))
  tokens = np.random.default_rng(0).integers(1, 40, (2, 7))
  no_inputs = np.zeros((2, 0), np.int32)
  first = jax.tree.map(lambda x: x[0], model.decoder.blocks)
  x_BxTxD = model.positions(model.embed(np.pad(tokens, ((0, 0), (1, 0)))[:, :-1], 0.0, None))
  x_BxTxD = x_BxTxD + first.attentions[0](x_BxTxD, SequenceMasks(None), None)[0]
  logits_BxTxMxN = first.feed_forward.feed_forward.logits(first.feed_forward.norm(x_BxTxD))
  expected_MxN = jax.nn.one_hot(logits_BxTxMxN.argmax(-1), 8).sum((0, 1))
  np.testing.assert_array_equal(unit_counts(model, no_inputs, tokens)['decoder'][0], expected_MxN)


def test_dense_layers_are_not_counted():
  dense = c.BlockConfig(16, 2, c.SparseProjectionConfig(4), c.DenseFFConfig(32))
  model = make_model(c.LanguageModelConfig(40, 32, n_layers=2, decoder=dense), key=jax.random.key(0))
  assert unit_counts(model, np.ones((1, 3), np.int32), np.ones((1, 3), np.int32)) == {}


def test_entropy_is_1_for_equal_counts_and_0_if_one_unit_is_always_selected():
  counts_LxMxN = np.array([[[5, 5, 5, 5], [3, 3, 3, 3]], [[9, 0, 0, 0], [0, 0, 7, 0]]])
  usage = unit_usage(counts_LxMxN)
  np.testing.assert_allclose(usage['entropy_L'], [1, 0])
  np.testing.assert_allclose(usage['dead_L'], [0, 0.75])
