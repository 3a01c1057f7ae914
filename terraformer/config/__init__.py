"""Configuration: frozen dataclasses, checked when built, bound by gin, stored as JSON with every checkpoint and bundle.

A config names a mechanism by its type: `SparseFFConfig` in the place of `DenseFFConfig` makes the layer sparse, so
every dense baseline is another value of the same field and no layer reads a mode string.
"""

from terraformer.config.base import UserError, differences, from_dict, to_dict
from terraformer.config.data import DataConfig, LocalFilesConfig, VocabularyConfig
from terraformer.config.model import (
  BlockConfig,
  DenseFFConfig,
  DenseOutputConfig,
  DenseProjectionConfig,
  SparseFFConfig,
  SparseOutputConfig,
  SparseProjectionConfig,
  SRUConfig,
  TerraformerConfig,
)
from terraformer.config.run import (
  AdafactorConfig,
  AdamWConfig,
  CosineScheduleConfig,
  DecodeConfig,
  MeshConfig,
  RsqrtScheduleConfig,
  RunConfig,
  TrainConfig,
)

__all__ = [
  'AdafactorConfig',
  'AdamWConfig',
  'BlockConfig',
  'CosineScheduleConfig',
  'DataConfig',
  'DecodeConfig',
  'DenseFFConfig',
  'DenseOutputConfig',
  'DenseProjectionConfig',
  'LocalFilesConfig',
  'MeshConfig',
  'RsqrtScheduleConfig',
  'RunConfig',
  'SRUConfig',
  'SparseFFConfig',
  'SparseOutputConfig',
  'SparseProjectionConfig',
  'TerraformerConfig',
  'TrainConfig',
  'UserError',
  'VocabularyConfig',
  'differences',
  'from_dict',
  'to_dict',
]
