"""Which output layer a config asks for."""

import jax

from terraformer.config import DenseOutputConfig, LowRankOutputConfig, SparseOutputConfig
from terraformer.layers.dense import Dense
from terraformer.layers.low_rank_output import LowRankOutput
from terraformer.layers.parameter import tell
from terraformer.layers.sparse_output import SparseOutput


def _dense(config: DenseOutputConfig, d_model: int, vocab_size: int, *, key: jax.Array) -> Dense:
  return Dense(d_model, vocab_size, key=key, axes=('embed', 'vocab'))


def _low_rank(config: LowRankOutputConfig, d_model: int, vocab_size: int, *, key: jax.Array) -> LowRankOutput:
  return LowRankOutput(config.rank, d_model, vocab_size, key=key)


_OUTPUTS = {DenseOutputConfig: _dense, LowRankOutputConfig: _low_rank, SparseOutputConfig: SparseOutput}


def make_output(
  config: DenseOutputConfig | LowRankOutputConfig | SparseOutputConfig,
  d_model: int,
  vocab_size: int,
  *,
  key: jax.Array,
) -> Dense | LowRankOutput | SparseOutput:
  """The layer from vectors ...xD to logits ...xV."""
  made = _OUTPUTS[type(config)](config, d_model, vocab_size, key=key)
  tell(made, part='output layer')
  return made
