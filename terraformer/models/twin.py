"""The dense twin of a model, a dense baseline with as many parameters."""

import dataclasses

from terraformer.config import BlockConfig, DenseFFConfig, DenseOutputConfig, DenseProjectionConfig, ModelConfig
from terraformer.models.make import abstract_model
from terraformer.models.parameters import count, split_module


def dense_twin(config: ModelConfig) -> ModelConfig:
  """Returns the same model with dense projections, feed-forward blocks and output, and as many parameters.

  Everything else (layers, attention, recurrence, positions) is kept. The d_ff of every block is multiplied by a factor
  that makes the number of parameters equal, and rounded to whole units.
  """
  once, twice = (n_parameters(_dense(config, factor)) for factor in (1, 2))
  return _dense(config, 1 + (n_parameters(config) - once) / (twice - once))


def n_parameters(config: ModelConfig) -> int:
  """Returns the number of parameters of a model, without allocating them."""
  return count(split_module(abstract_model(config))[1])


def _dense(config: ModelConfig, factor: float) -> ModelConfig:
  """Returns the config with dense mechanisms, and d_ff multiplied by `factor`."""

  def block(sparse: BlockConfig) -> BlockConfig:
    return dataclasses.replace(
      sparse,
      projection=DenseProjectionConfig(share_qk=sparse.projection.share_qk),
      feed_forward=DenseFFConfig(max(1, round(sparse.feed_forward.d_ff * factor))),
    )

  blocks = {name: block(sparse) for name, sparse in config.blocks.items()}
  return dataclasses.replace(config, output=DenseOutputConfig(), **blocks)
