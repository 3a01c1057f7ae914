"""Writes a checkpoint of random weights as trax, the library of the paper's authors, writes one.

  python benchmarks/trax_checkpoint.py --size=medium FOLDER

`medium` is the size that the authors published for summaries of articles (about 860 million parameters, positions of
rank 64, attention as in their configuration for articles), `large` has more than 3 billion and the embedding twice, as
their memory-efficient trainer stores it, and `small` is for tests. The folder has config.gin, model_200000.pkl.gz and
model_200000.weights.npy.gz. One array is in memory at a time.
"""

import argparse
import gzip
import os
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import numpy as np
from tqdm import tqdm

from terraformer.trax.architecture import read_architecture
from terraformer.trax.gin_values import GinValues
from terraformer.trax.layout import layout
from terraformer.trax.parts import Part

STEP = 200_000
_GIN = """\
import trax.data
import trax.models

# Macros:
# ==============================================================================
attn_kv = {d_head}
d_ff = {d_ff}
d_model = {d_model}
dec_attn_type = {decoder}
dropout = 0.1
enc_attn_type = {encoder}
n_heads = {n_heads}
vocab_size = {vocab_size}

# Parameters for AppendValue:
# ==============================================================================
AppendValue.val = {append}

# Parameters for ConfigurableTerraformer:
# ==============================================================================
ConfigurableTerraformer.d_attention_key = %attn_kv
ConfigurableTerraformer.d_attention_value = %attn_kv
ConfigurableTerraformer.d_ff = %d_ff
ConfigurableTerraformer.d_model = %d_model
ConfigurableTerraformer.dropout = %dropout
ConfigurableTerraformer.encoder_attention_type = %enc_attn_type
ConfigurableTerraformer.encoder_decoder_attention_type = %dec_attn_type
ConfigurableTerraformer.ff_activation = @trax.layers.Relu
ConfigurableTerraformer.ff_chunk_size = 512
ConfigurableTerraformer.ff_dropout = 0.1
ConfigurableTerraformer.ff_sparsity = {ff_sparsity}
ConfigurableTerraformer.ff_use_sru = (1, {sru})
ConfigurableTerraformer.input_vocab_size = %vocab_size
ConfigurableTerraformer.loss_sparsity = {loss_sparsity}
ConfigurableTerraformer.loss_sparsity_type = 'mult'
ConfigurableTerraformer.max_len = {max_len}
ConfigurableTerraformer.n_decoder_attention_layers = {n_decoder_attentions}
ConfigurableTerraformer.n_decoder_layers = {n_decoder_layers}
ConfigurableTerraformer.n_encoder_layers = {n_encoder_layers}
ConfigurableTerraformer.n_heads = %n_heads
ConfigurableTerraformer.pos_type = None
ConfigurableTerraformer.reversible_encoder = True
ConfigurableTerraformer.use_two_swaps_per_encoder_block = True

# Parameters for MixedLSHSelfAttention:
# ==============================================================================
MixedLSHSelfAttention.chunk_len = {chunk_len}
MixedLSHSelfAttention.n_hashes = 4
MixedLSHSelfAttention.std_length = {std_length}
encoder/MixedLSHSelfAttention.n_chunks_after = 1

# Parameters for MultiplicativeConvCausalAttention:
# ==============================================================================
MultiplicativeConvCausalAttention.length_kernel_size = 3
MultiplicativeConvCausalAttention.share_qk = True
MultiplicativeConvCausalAttention.sparsity = {sparsity}

# Parameters for PadToLength:
# ==============================================================================
PadToLength.len_map = {{0: {inputs_length}, 1: {targets_length}}}

# Parameters for PureLSHSelfAttentionWrapper:
# ==============================================================================
PureLSHSelfAttentionWrapper.pure_lsh_implementation = @MixedLSHSelfAttention
PureLSHSelfAttentionWrapper.sparsity = {sparsity}
PureLSHSelfAttentionWrapper.weights_format = 'sparse'
encoder/PureLSHSelfAttentionWrapper.pure_lsh_implementation = \\
    @encoder/MixedLSHSelfAttention
encoder/PureLSHSelfAttentionWrapper.weights_format = 'model'

mira.pipeline(stream) = <of a library that is not public>
"""
_ARTICLES = {
  'decoder': '@PureLSHSelfAttentionWrapper',
  'encoder': '@encoder/PureLSHSelfAttentionWrapper',
  'append': '{0: [0], 1: [1]}',
  'chunk_len': 128,
  'std_length': 2048,
  'n_decoder_attentions': 2,
}
SIZES = {
  'small': _ARTICLES
  | {
    'd_model': 32,
    'd_head': 8,
    'n_heads': 4,
    'd_ff': 64,
    'ff_sparsity': 8,
    'sru': 4,
    'loss_sparsity': 4,
    'sparsity': 4,
    'vocab_size': 736,
    'max_len': 64,
    'n_encoder_layers': 1,
    'n_decoder_layers': 2,
    'inputs_length': 48,
    'targets_length': 16,
    'rank': 8,
    'twice': False,
    'level': 2,
  },
  'medium': _ARTICLES
  | {
    'd_model': 1024,
    'd_head': 64,
    'n_heads': 16,
    'd_ff': 6144,
    'ff_sparsity': 64,
    'sru': 32,
    'loss_sparsity': 4,
    'sparsity': 16,
    'vocab_size': 32000,
    'max_len': 32768,
    'n_encoder_layers': 24,
    'n_decoder_layers': 24,
    'inputs_length': 15360,
    'targets_length': 1024,
    'rank': 64,
    'twice': False,
    'level': 2,
  },
  'large': _ARTICLES
  | {
    'decoder': '@MultiplicativeConvCausalAttention',
    'encoder': '@Attention',
    'append': '{0: [1], 1: [1]}',
    'd_model': 4096,
    'd_head': 128,
    'n_heads': 32,
    'd_ff': 32768,
    'ff_sparsity': '(128, 32)',
    'sru': 64,
    'loss_sparsity': 0,
    'sparsity': 32,
    'vocab_size': 32000,
    'max_len': 32768,
    'n_encoder_layers': 1,
    'n_decoder_layers': 10,
    'inputs_length': 512,
    'targets_length': 256,
    'rank': 0,
    'twice': True,
    'level': 0,
  },
}


def entries(size: dict) -> Iterator[tuple[str, tuple[int, ...]]]:
  """Names and shapes of a checkpoint's entries, in order."""
  wanted = layout(read_architecture(GinValues(_GIN.format(**size), 'config.gin')))
  parts = next(wanted)
  while True:
    part = _chosen(parts, size)
    shape = tuple(n if n is not None else default for n, default in zip(part.shape, _unknown(part, size), strict=True))
    yield part.name, shape
    try:
      parts = wanted.send((part, shape))
    except StopIteration:
      return


def _chosen(parts: list[Part], size: dict) -> Part:
  """The part that comes of those that may: the embedding once more, a table of full or of low rank, the only one."""
  if parts[0].is_copy and size['twice']:
    return parts[0]
  tables = [part for part in parts if part.name.endswith('_pos/table')] or [part for part in parts if not part.is_copy]
  return tables[-1 if size['rank'] else 0]


def _unknown(part: Part, size: dict) -> tuple[int, ...]:
  """Sizes that the layout leaves open: of a table of positions."""
  return (size['max_len'], size['rank'] or size['d_model']) if len(part.shape) == 2 else (0,) * len(part.shape)


def _values(name: str, shape: tuple[int, ...], rng: np.random.Generator, embedding: np.ndarray | None) -> np.ndarray:
  if name == 'embedding_again':
    return embedding
  if name.endswith('ln/scale'):
    return np.ones(shape, np.float32)
  if name.endswith(('bias', '/mb', '/b2')):
    return np.zeros(shape, np.float32)
  fan_in = shape[-1] if name.startswith(('embedding', 'encoder_pos/table', 'decoder_pos/table')) else shape[0]
  scale = 0.5 if name.endswith('gating') else (9 * shape[-2]) ** -0.5 if len(shape) == 4 else fan_in**-0.5
  if name.endswith('/w2'):
    scale = shape[1] ** -0.5
  values = rng.standard_normal(shape, np.float32)
  values *= scale
  return values


def write(folder: Path, size: dict, show_progress: bool = False) -> int:
  """Writes a checkpoint and returns the number of its parameters."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'config.gin').write_text(_GIN.format(**size))
  (folder / f'model_{STEP}.pkl.gz').write_bytes(_pickle(size))
  rng, embedding, n_parameters, named = np.random.default_rng(0), None, 0, list(entries(size))
  with gzip.open(folder / f'model_{STEP}.weights.npy.gz', 'wb', compresslevel=size['level']) as file:
    for name, shape in tqdm(named, desc='write', unit='array', disable=not show_progress):
      values = _values(name, shape, rng, embedding)
      embedding = values if name == 'embedding' and size['twice'] else embedding
      np.save(file, values)
      n_parameters += values.size * (name != 'embedding_again')
  return n_parameters


def _pickle(size: dict) -> bytes:
  """The main file, whose classes are those of trax by their names."""
  module = types.ModuleType('trax.shapes')

  class ShapeDtype:
    __slots__ = ('shape', 'dtype')

    def __init__(self, shape: tuple[int, ...]):
      self.shape, self.dtype = shape, np.dtype(np.int64)

  ShapeDtype.__module__, ShapeDtype.__qualname__ = module.__name__, 'ShapeDtype'
  module.ShapeDtype = ShapeDtype
  lengths = size['inputs_length'], size['targets_length']
  values = {
    'step': STEP,
    'flat_weights': size['level'],
    'flat_state': [np.zeros(4, np.float32)],
    'flat_eval_state': [],
    'history': {'_values': {'train': {'metrics/loss': [(STEP, 1.5)]}}},
    'slots_per_task': size['level'],
    'input_signature': tuple(ShapeDtype((8, length)) for length in lengths),
    'version_timestamp': 'Mar-10-2021',
  }
  others = {name: sys.modules.get(name) for name in ('trax', 'trax.shapes')}
  try:
    sys.modules |= {'trax': types.ModuleType('trax'), 'trax.shapes': module}
    return gzip.compress(pickle.dumps(values))
  finally:
    for name, other in others.items():
      _restore(name, other)


def _restore(name: str, module: types.ModuleType | None) -> None:
  if module is None:
    del sys.modules[name]
  else:
    sys.modules[name] = module


def main(arguments: list[str] | None = None, say: Callable[[str], object] = print) -> None:
  """Writes what the command line asks for."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--size', choices=SIZES, default='medium')
  parser.add_argument('folder', type=Path)
  flags = parser.parse_args(arguments)
  n_parameters = write(flags.folder, SIZES[flags.size], sys.stderr.isatty())
  say(f'{flags.folder}: {n_parameters:,} parameters')


if __name__ == '__main__':
  main()
