"""Which feed-forward block a config asks for."""

import jax

from terraformer.config import BlockConfig, BlockSparseFFConfig, DenseFFConfig, SparseFFConfig, SwitchFFConfig
from terraformer.layers.block_sparse_ff import BlockSparseFF
from terraformer.layers.dense_ff import DenseFF
from terraformer.layers.parameter import tell
from terraformer.layers.sparse_ff import SparseFF
from terraformer.layers.switch_ff import SwitchFF

FeedForward = DenseFF | SparseFF | BlockSparseFF | SwitchFF

_FEED_FORWARDS = {
  DenseFFConfig: DenseFF,
  SparseFFConfig: SparseFF,
  BlockSparseFFConfig: BlockSparseFF,
  SwitchFFConfig: SwitchFF,
}


def make_feed_forward(config: BlockConfig, *, key: jax.Array) -> FeedForward:
  """The feed-forward block of a layer, with the layer's dropout."""
  made = _FEED_FORWARDS[type(config.feed_forward)](config.feed_forward, config.d_model, config.dropout, key=key)
  tell(made, part='feed-forward')
  return made
