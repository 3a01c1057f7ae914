"""Which projection a config asks for."""

import jax

from terraformer.config import BlockConfig, DenseProjectionConfig, ModularProjectionConfig, SparseProjectionConfig
from terraformer.layers.dense_qkv import DenseProjection
from terraformer.layers.modular_qkv import ModularProjection
from terraformer.layers.parameter import tell
from terraformer.layers.projection import Projection
from terraformer.layers.sparse_qkv import SparseProjection

_PROJECTIONS = {
  DenseProjectionConfig: DenseProjection,
  SparseProjectionConfig: SparseProjection,
  ModularProjectionConfig: ModularProjection,
}


def make_projection(config: BlockConfig, *, key: jax.Array) -> Projection:
  """The projection of an attention layer."""
  made = _PROJECTIONS[type(config.projection)](config.projection, config.d_model, config.n_heads, key=key)
  tell(made, part='QKV')
  return made
