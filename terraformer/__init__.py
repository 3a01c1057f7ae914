"""Terraformer-JAX: sparse Transformers that train on pods and decode on a laptop.

The public API is what `__all__` lists:

    import terraformer as tf

    config = tf.load_config('gin_configs/runs/demo.gin')
    tf.train(config, 'runs/demo')
    print(tf.evaluate('runs/demo').rouge)
    tf.export('runs/demo', 'runs/demo_bundle')
    print(*tf.Decoder.open('runs/demo_bundle').generate('summarize: ...'))

Everything else may change between versions. A name is imported when it is first used: `import terraformer` alone loads
neither JAX nor any other library.
"""

TYPE_CHECKING = False  # type checkers assume that this is true; importing `typing` for it takes several milliseconds
if TYPE_CHECKING:
  from terraformer.api import evaluate, export, import_checkpoint, train
  from terraformer.config import (
    AdafactorConfig,
    AdamWConfig,
    AttentionConfig,
    AxialPositionsConfig,
    BlockConfig,
    BlockSparseFFConfig,
    CheckpointConfig,
    CosineScheduleConfig,
    DataConfig,
    DataSource,
    DecimalCopyConfig,
    DecodeConfig,
    DenseFFConfig,
    DenseOutputConfig,
    DenseProjectionConfig,
    DivergenceConfig,
    DocstringSummariesConfig,
    DocstringTextConfig,
    EncoderDecoderConfig,
    FeedForwardConfig,
    FixedBasePositionsConfig,
    FullAttentionConfig,
    InitFromConfig,
    LanguageModelConfig,
    LayerNormConfig,
    LMConfig,
    LocalFilesConfig,
    LocalFolderConfig,
    LongAdditionConfig,
    LowRankOutputConfig,
    LSHAttentionConfig,
    MeshConfig,
    ModelConfig,
    ModularProjectionConfig,
    NormConfig,
    OptimizerConfig,
    OutputConfig,
    PackingConfig,
    PlainResidualConfig,
    PositionsConfig,
    PrefixLMConfig,
    ProjectionConfig,
    ResidualConfig,
    ReversibleResidualConfig,
    RMSNormConfig,
    RsqrtScheduleConfig,
    RunConfig,
    ScheduleConfig,
    SeqioTaskConfig,
    ShardingConfig,
    SinusoidPositionsConfig,
    SpanCorruptionConfig,
    SparseFFConfig,
    SparseOutputConfig,
    SparseProjectionConfig,
    SRUConfig,
    SwitchFFConfig,
    TablePositionsConfig,
    TerraformerConfig,
    TfdsConfig,
    TokenizerConfig,
    TrainConfig,
    UserError,
    WatchdogConfig,
  )
  from terraformer.configure import load_config
  from terraformer.decode.decoder import Decoder
  from terraformer.models.make import make_model

__version__ = '0.1.0'

__all__ = [
  '__version__',
  'Decoder',
  'evaluate',
  'export',
  'import_checkpoint',
  'load_config',
  'make_model',
  'train',
  # The configuration.
  'AdafactorConfig',
  'AdamWConfig',
  'AttentionConfig',
  'AxialPositionsConfig',
  'BlockConfig',
  'BlockSparseFFConfig',
  'CheckpointConfig',
  'CosineScheduleConfig',
  'DataConfig',
  'DataSource',
  'DecimalCopyConfig',
  'DecodeConfig',
  'DenseFFConfig',
  'DenseOutputConfig',
  'DenseProjectionConfig',
  'DivergenceConfig',
  'DocstringSummariesConfig',
  'DocstringTextConfig',
  'EncoderDecoderConfig',
  'FeedForwardConfig',
  'FixedBasePositionsConfig',
  'FullAttentionConfig',
  'InitFromConfig',
  'LMConfig',
  'LSHAttentionConfig',
  'LanguageModelConfig',
  'LayerNormConfig',
  'LocalFilesConfig',
  'LocalFolderConfig',
  'LongAdditionConfig',
  'LowRankOutputConfig',
  'MeshConfig',
  'ModelConfig',
  'ModularProjectionConfig',
  'NormConfig',
  'OptimizerConfig',
  'OutputConfig',
  'PackingConfig',
  'PlainResidualConfig',
  'PositionsConfig',
  'PrefixLMConfig',
  'ProjectionConfig',
  'RMSNormConfig',
  'ResidualConfig',
  'ReversibleResidualConfig',
  'RsqrtScheduleConfig',
  'RunConfig',
  'SRUConfig',
  'ScheduleConfig',
  'SeqioTaskConfig',
  'ShardingConfig',
  'SinusoidPositionsConfig',
  'SpanCorruptionConfig',
  'SparseFFConfig',
  'SparseOutputConfig',
  'SparseProjectionConfig',
  'SwitchFFConfig',
  'TablePositionsConfig',
  'TerraformerConfig',
  'TfdsConfig',
  'TokenizerConfig',
  'TrainConfig',
  'UserError',
  'WatchdogConfig',
]

# The modules of the names above; all other names are in `terraformer.config`.
_MODULES = {
  'Decoder': 'decode.decoder',
  'evaluate': 'api',
  'export': 'api',
  'import_checkpoint': 'api',
  'load_config': 'configure',
  'make_model': 'models.make',
  'train': 'api',
}


if not TYPE_CHECKING:  # with this function, type checkers would accept any name

  def __getattr__(name: str) -> object:
    if name not in __all__:
      raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f'{__name__}.{_MODULES.get(name, "config")}'), name)
    return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
