"""The dense twin of a model: its yardstick."""

import dataclasses

from terraformer.config import BlockConfig, DenseFFConfig, DenseOutputConfig, DenseProjectionConfig, ModelConfig
from terraformer.models.make import abstract_model
from terraformer.models.parameters import count, split_module


def dense_twin(config: ModelConfig) -> ModelConfig:
  """The same model with dense projections, feed-forward blocks and output, of as many parameters.

  What else it is made of (layers, attention, recurrence, positions) stays. The d_ff of each block is what it was, times
  the factor that makes the parameters as many, to a whole number of units.
  """
  once, twice = (n_parameters(_dense(config, factor)) for factor in (1, 2))
  return _dense(config, 1 + (n_parameters(config) - once) / (twice - once))


def n_parameters(config: ModelConfig) -> int:
  """Parameters of a model; nothing is allocated."""
  return count(split_module(abstract_model(config))[1])


def _dense(config: ModelConfig, factor: float) -> ModelConfig:
  """The config with dense mechanisms, d_ff multiplied by `factor`."""

  def block(sparse: BlockConfig) -> BlockConfig:
    return dataclasses.replace(
      sparse,
      projection=DenseProjectionConfig(share_qk=sparse.projection.share_qk),
      feed_forward=DenseFFConfig(max(1, round(sparse.feed_forward.d_ff * factor))),
    )

  blocks = {name: block(sparse) for name, sparse in config.blocks.items()}
  return dataclasses.replace(config, output=DenseOutputConfig(), **blocks)
