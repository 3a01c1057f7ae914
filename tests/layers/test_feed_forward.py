import pytest

from terraformer.config import BlockConfig, BlockSparseFFConfig, DenseFFConfig, SparseFFConfig, SwitchFFConfig
from terraformer.layers.dense_ff import DenseFF
from terraformer.layers.make import make_feed_forward
from terraformer.layers.mixture_of_experts import BlockSparseFF, SwitchFF
from terraformer.layers.sparse_ff import SparseFF
from tests.weights import shapes

KINDS = {
  DenseFFConfig(30): DenseFF,
  SparseFFConfig(30, 6, 7): SparseFF,
  BlockSparseFFConfig(30, 5): BlockSparseFF,
  SwitchFFConfig(30, 5): SwitchFF,
}


@pytest.mark.parametrize('feed_forward', KINDS, ids=lambda config: type(config).__name__)
def test_a_config_makes_its_block_with_the_dropout_of_the_layer(feed_forward):
  config = BlockConfig(d_model=48, n_heads=3, feed_forward=feed_forward, dropout=0.2)
  layer = shapes(lambda key: make_feed_forward(config, key=key))
  assert type(layer) is KINDS[feed_forward] and layer.rate == 0.2
