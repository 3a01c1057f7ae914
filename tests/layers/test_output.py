"""D 24, V 30."""

import jax
import numpy as np
import pytest

from terraformer.config import DenseOutputConfig, LowRankOutputConfig, SparseOutputConfig
from terraformer.layers.make import make_output
from terraformer.layers.parameter import facts_of
from tests.weights import build, call

# The number of parameters of each layer, with its bias.
SIZES = {DenseOutputConfig(): 24 * 30 + 30, LowRankOutputConfig(5): 24 * 5 + 5 * 30 + 30, SparseOutputConfig(3): 342}
by_config = pytest.mark.parametrize('config', SIZES)


def _layer(config):
  return build(lambda key: make_output(config, 24, 30, key=key))


@by_config
def test_logits_have_the_size_of_the_vocabulary(config):
  x_BxTxD = np.random.default_rng(0).normal(size=(2, 3, 24)).astype(np.float32)
  assert call(_layer(config), x_BxTxD).shape == (2, 3, 30)


@by_config
def test_a_config_makes_its_layer(config):
  assert sum(leaf.size for leaf in jax.tree.leaves(_layer(config))) == SIZES[config]


@by_config
def test_the_outputs_have_the_logical_axis_vocab(config):
  axes = facts_of(_layer(config))
  assert any('vocab' in facts.axes for facts in axes.values())
