"""The experiments: what differs from a gin file, one line each."""

import fnmatch
from collections.abc import Iterator

from benchmarks.claims.experiment import Experiment
from benchmarks.claims.long_text import write_long_text
from terraformer.config import UserError


def _steps(steps: int) -> tuple[str, ...]:
  return (f'TrainConfig.steps = {steps}', f'CosineScheduleConfig.decay_steps = {steps}')


# --- Section 4.3: numbers that are longer than those in training -----------------------------------------------------

_DENSE = (
  'BlockConfig.projection = @config.DenseProjectionConfig()',
  'BlockConfig.feed_forward = @config.DenseFFConfig()',
  'DenseFFConfig.d_ff = 512',
  'TerraformerConfig.output = @config.DenseOutputConfig()',
)
_NO_SRU = ('BlockConfig.recurrence = None',)
_DIGITS = {
  'sru': (),
  'no_sru': _NO_SRU,
  'dense': (*_DENSE, *_NO_SRU),
  'table': ('TerraformerConfig.positions = @config.TablePositionsConfig()',),
  'dense_sru': _DENSE,
}
# What may bring the copies of longer numbers nearer to the paper's; one seed.
_TRIED = {
  'sru_from_zero': ('FixedBasePositionsConfig.start_from_zero = 0.2',),
  'sru_attentions_2': ('TerraformerConfig.n_decoder_attentions = 2',),
  'sru_longer': _steps(4000),
  'sru_all': (
    'FixedBasePositionsConfig.start_from_zero = 0.2',
    'TerraformerConfig.n_decoder_attentions = 2',
    *_steps(4000),
  ),
}
_LENGTHS = (*range(2, 32, 2), *range(32, 39), 40, 44, 48)
_FAR = ('DataConfig.inputs_length = 130', 'DataConfig.targets_length = 130', 'TerraformerConfig.max_length = 512')


def _digits() -> Iterator[Experiment]:
  for seed in range(3):
    for name in ('sru', 'no_sru', 'dense') if seed else _DIGITS:
      yield Experiment(f'copy-{name}-{seed}', 'copy.gin', _DIGITS[name], 'copy', 0.2, lengths=_LENGTHS)
      yield Experiment(f'addition-{name}-{seed}', 'addition.gin', _DIGITS[name], 'addition', 0.3, lengths=_LENGTHS)
  for name, bindings in _TRIED.items():
    yield Experiment(f'copy-{name}-0', 'copy.gin', bindings, 'copy', 0.3, lengths=_LENGTHS)


def _digits_of_the_paper() -> Iterator[Experiment]:
  far = (*range(16, 257, 16), *range(260, 301, 10))
  for seed in range(3):
    for name in ('sru', 'no_sru', 'dense'):
      bindings = (
        *_DIGITS[name],
        *_FAR,
        'DecimalCopyConfig.train_digits = (1, 128)',
        'TrainConfig.batch_size = 256',
        *_steps(20_000),
      )
      yield Experiment(f'copy_128-{name}-{seed}', 'copy.gin', bindings, 'copy_128', 1.0, 'gpu', far)


# --- Figure 1: sparse layers at equal parameters ---------------------------------------------------------------------

_FF = ('BlockConfig.feed_forward = @config.SparseFFConfig()',)
_QKV = ('BlockConfig.projection = @config.SparseProjectionConfig()', 'SparseProjectionConfig.n_modules = 8')
_OUTPUT = ('LanguageModelConfig.output = @config.SparseOutputConfig()',)
_SWITCH = ('BlockConfig.feed_forward = @config.SwitchFFConfig()', 'SwitchFFConfig.n_experts = 16')


def _sparse(d_ff: int, block_size: int = 16, rank: int = 32) -> tuple[str, ...]:
  return (
    *_FF,
    f'SparseFFConfig.d_ff = {d_ff}',
    f'SparseFFConfig.block_size = {block_size}',
    f'SparseFFConfig.rank = {rank}',
  )


# d_ff gives each as many parameters as the dense model has.
_TEXT = {
  'dense': ('DenseFFConfig.d_ff = 512',),
  'ff_qkv': (*_QKV, *_sparse(640)),
  'ff': _sparse(448),
  'qkv': (*_QKV, 'DenseFFConfig.d_ff = 736'),
  'switch': (*_SWITCH, 'SwitchFFConfig.d_ff = 512'),
  'ff_qkv_output': (*_QKV, *_OUTPUT, *_sparse(720)),
}
_LARGER = (
  'BlockConfig.d_model = 256',
  'BlockConfig.n_heads = 8',
  'LanguageModelConfig.n_layers = 6',
  'LanguageModelConfig.unroll = 6',
  'CosineScheduleConfig.peak = 2e-3',
  *_steps(1000),
)
_LARGER_TEXT = {
  'dense': (*_LARGER, 'DenseFFConfig.d_ff = 1024'),
  'ff_qkv': (*_LARGER, *_QKV, *_sparse(1280, rank=64)),
}
_ABLATIONS = {
  'block_4': _sparse(448, block_size=4),
  'block_8': _sparse(448, block_size=8),
  'block_32': _sparse(448, block_size=32),
  'block_64': _sparse(448, block_size=64),
  'rank_8': _sparse(496, rank=8),
  'rank_64': _sparse(384, rank=64),
  'hard_0': (*_sparse(448), 'SparseFFConfig.hard_probability = 0.0'),
  'hard_100': (*_sparse(448), 'SparseFFConfig.hard_probability = 1.0'),
  'temperature_0': (*_sparse(448), 'SparseFFConfig.temperature = 0.0'),
  'temperature_1': (*_sparse(448), 'SparseFFConfig.temperature = 1.0'),
}


def _text() -> Iterator[Experiment]:
  for seed in range(3):
    for name, bindings in _TEXT.items():
      yield Experiment(f'text-{name}-{seed}', 'text.gin', bindings, 'text', 0.2)
  for seed in range(3):
    for name, bindings in _LARGER_TEXT.items():
      yield Experiment(f'larger_text-{name}-{seed}', 'text.gin', bindings, 'text', 0.8)
  for name, bindings in _ABLATIONS.items():
    yield Experiment(f'text-{name}-0', 'text.gin', bindings, 'text', 0.2)


# --- LSH attention at 2,048 tokens -----------------------------------------------------------------------------------


def _lsh(n_rounds: int, chunk_length: int) -> tuple[str, ...]:
  return (f'LSHAttentionConfig.n_rounds = {n_rounds}', f'LSHAttentionConfig.chunk_length = {chunk_length}')


_LONG = {'full': ('LSHAttentionConfig.full_below = 2048',)} | {
  f'rounds_{rounds}_chunk_{chunk}': _lsh(rounds, chunk)
  for rounds, chunk in ((2, 64), (1, 64), (4, 64), (8, 64), (2, 32), (2, 128))
}


def _long() -> Iterator[Experiment]:
  for name, bindings in _LONG.items():
    yield Experiment(f'long-{name}-0', 'long_text.gin', bindings, 'long_text', 0.3, write_text=write_long_text)


# --- Terraformer beside an encoder-decoder ---------------------------------------------------------------------------

_ENCODER_DECODER = (
  'RunConfig.model = @config.EncoderDecoderConfig()',
  'EncoderDecoderConfig.vocab_size = 4096',
  'EncoderDecoderConfig.max_length = 256',
  'EncoderDecoderConfig.unroll = 2',
  'EncoderDecoderConfig.output = @config.DenseOutputConfig()',
  'BlockConfig.projection = @config.DenseProjectionConfig()',
  'BlockConfig.feed_forward = @config.DenseFFConfig()',
  'BlockConfig.recurrence = None',
)


def _pairs() -> Iterator[Experiment]:
  kinds = {
    'terraformer': (),
    'encoder_decoder': (*_ENCODER_DECODER, 'DenseFFConfig.d_ff = 512'),
    'encoder_decoder_longer': (*_ENCODER_DECODER, 'DenseFFConfig.d_ff = 512', *_steps(5600)),
  }
  for name, bindings in kinds.items():
    yield Experiment(f'pairs-{name}-0', 'pairs.gin', bindings, 'pairs', 0.3)


def _first_seed_first(experiments: list[Experiment]) -> tuple[Experiment, ...]:
  return tuple(sorted(experiments, key=lambda each: each.seed))


EXPERIMENTS = _first_seed_first([*_digits(), *_text(), *_long(), *_pairs(), *_digits_of_the_paper()])


def chosen(patterns: str, scale: str) -> list[Experiment]:
  """Returns the experiments of a scale whose names match one of several patterns, in the order of the list.

  Raises:
    UserError: if a pattern matches none.
  """
  all_of_scale = [each for each in EXPERIMENTS if each.scale == scale]
  if not patterns:
    return all_of_scale
  for pattern in patterns.split(','):
    if not fnmatch.filter([each.name for each in all_of_scale], pattern):
      raise UserError(f'--only={pattern}: no experiment of the scale {scale} has this name; --list shows all')
  return [each for each in all_of_scale if any(fnmatch.fnmatch(each.name, one) for one in patterns.split(','))]
