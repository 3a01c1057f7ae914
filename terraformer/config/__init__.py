"""Configuration: frozen dataclasses, checked when built, bound by gin, stored as JSON with every checkpoint and bundle.

A config names a mechanism by its type: `SparseFFConfig` in the place of `DenseFFConfig` makes the layer sparse, so
every dense baseline is another value of the same field and no layer reads a mode string.
"""

from terraformer.config.attention import (
  AttentionConfig,
  DenseProjectionConfig,
  FullAttentionConfig,
  LSHAttentionConfig,
  ModularProjectionConfig,
  ProjectionConfig,
  SparseProjectionConfig,
)
from terraformer.config.base import UserError, differences, from_dict, refused, to_dict, unreadable
from terraformer.config.data import (
  DataConfig,
  DigitsConfig,
  LocalFilesConfig,
  LocalFolderConfig,
  PackingConfig,
  VocabularyConfig,
)
from terraformer.config.layers import (
  BlockSparseFFConfig,
  DenseFFConfig,
  DenseOutputConfig,
  FeedForwardConfig,
  LayerNormConfig,
  LowRankOutputConfig,
  NormConfig,
  OutputConfig,
  PlainResidualConfig,
  ResidualConfig,
  ReversibleResidualConfig,
  RMSNormConfig,
  SparseFFConfig,
  SparseOutputConfig,
  SRUConfig,
  SwitchFFConfig,
)
from terraformer.config.mesh import MeshConfig, ShardingConfig
from terraformer.config.model import (
  BlockConfig,
  EncoderDecoderConfig,
  LanguageModelConfig,
  ModelConfig,
  TerraformerConfig,
)
from terraformer.config.objectives import LMConfig, PrefixLMConfig, SpanCorruptionConfig
from terraformer.config.optimizer import (
  AdafactorConfig,
  AdamWConfig,
  CosineScheduleConfig,
  RsqrtScheduleConfig,
)
from terraformer.config.positions import (
  AxialPositionsConfig,
  FixedBasePositionsConfig,
  PositionsConfig,
  SinusoidPositionsConfig,
  TablePositionsConfig,
)
from terraformer.config.run import DecodeConfig, RunConfig
from terraformer.config.train import (
  CheckpointConfig,
  DivergenceConfig,
  InitFromConfig,
  TrainConfig,
  WatchdogConfig,
)

__all__ = [
  'AttentionConfig',
  'ProjectionConfig',
  'FeedForwardConfig',
  'NormConfig',
  'OutputConfig',
  'ResidualConfig',
  'PositionsConfig',
  'AdafactorConfig',
  'AdamWConfig',
  'AxialPositionsConfig',
  'BlockConfig',
  'BlockSparseFFConfig',
  'CheckpointConfig',
  'CosineScheduleConfig',
  'DataConfig',
  'DecodeConfig',
  'DenseFFConfig',
  'DenseOutputConfig',
  'DenseProjectionConfig',
  'DigitsConfig',
  'DivergenceConfig',
  'EncoderDecoderConfig',
  'FixedBasePositionsConfig',
  'FullAttentionConfig',
  'InitFromConfig',
  'LMConfig',
  'LSHAttentionConfig',
  'LanguageModelConfig',
  'LayerNormConfig',
  'LocalFilesConfig',
  'LocalFolderConfig',
  'LowRankOutputConfig',
  'MeshConfig',
  'ModelConfig',
  'ModularProjectionConfig',
  'PackingConfig',
  'PrefixLMConfig',
  'PlainResidualConfig',
  'RMSNormConfig',
  'ReversibleResidualConfig',
  'RsqrtScheduleConfig',
  'RunConfig',
  'SRUConfig',
  'ShardingConfig',
  'SinusoidPositionsConfig',
  'SpanCorruptionConfig',
  'SparseFFConfig',
  'SparseOutputConfig',
  'SparseProjectionConfig',
  'SwitchFFConfig',
  'TablePositionsConfig',
  'TerraformerConfig',
  'TrainConfig',
  'UserError',
  'VocabularyConfig',
  'WatchdogConfig',
  'differences',
  'from_dict',
  'refused',
  'to_dict',
  'unreadable',
]
