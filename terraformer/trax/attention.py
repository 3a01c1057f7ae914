"""The attention classes of trax that this library has a counterpart for."""

import dataclasses
from collections.abc import Callable
from typing import Any

from terraformer.config import (
  AttentionConfig,
  DenseProjectionConfig,
  FullAttentionConfig,
  LSHAttentionConfig,
  ModularProjectionConfig,
  ProjectionConfig,
  SparseProjectionConfig,
)
from terraformer.trax import parts
from terraformer.trax.gin_values import Reference
from terraformer.trax.parts import Part
from terraformer.trax.section import Section

_ALWAYS = 2**31 - 1  # positions, more than there can be
_MODULE_KERNEL = 3  # which trax has no field for
_CAUSAL_ONLY = ('CausalAttention', 'MultiplicativeConvCausalAttention', 'MultiplicativeModularCausalAttention')
_LSH_FIELDS = {
  'chunk_len',
  'n_chunks_before',
  'n_chunks_after',
  'n_hashes',
  'n_buckets',
  'max_length_for_buckets',
  'bias',
}
# What changes nothing outside of training and of trax's own decoding.
_WITHOUT_EFFECT = {
  'attention_dropout',
  'output_dropout',
  'dropout',
  'force_no_dropout',
  'max_inference_length',
  'mode',
  'n_parallel_heads',
  'predict_drop_len',
  'predict_mem_len',
  'use_python_loop',
  'use_reference_code',
}


@dataclasses.dataclass(frozen=True)
class Attention:
  """The attention of a stack.

  Attributes:
    projection, attention: its configuration here.
    parts: (name in trax, name here) -> the entries of one layer's.
  """

  projection: ProjectionConfig
  attention: AttentionConfig
  parts: Callable[[str, str], list[Part]]


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What an attention class is made with.

  Attributes:
    d_model, n_heads: of the stack.
    dropout: of attention weights.
    is_causal: whether the stack is the decoder.
  """

  d_model: int
  n_heads: int
  dropout: float
  is_causal: bool


def read_attention(section: Section, field: str, sizes: Sizes) -> Attention:
  """Returns the attention that a field of the model names.

  Raises:
    UserError: if it is a class, or has a field or a value, that this library cannot express.
  """
  value = section.get(field, Reference('SelfAttention'))
  if isinstance(value, (list, tuple)) and len(set(value)) == 1:
    value = value[0]
  if not isinstance(value, Reference) or value.name not in _CLASSES:
    raise section.refused(field, f'one of {", ".join(sorted(_CLASSES))}')
  allowed = [name for name in _CLASSES if (name != 'Attention' if sizes.is_causal else name not in _CAUSAL_ONLY)]
  if value.name not in allowed:
    raise section.refused(field, f'one of {", ".join(sorted(allowed))} in this stack')
  return _CLASSES[value.name](Section(section.gin, value.name, value.scope), sizes)


def _dense(section: Section, sizes: Sizes) -> Attention:
  section.require_known({'use_dconv', *_WITHOUT_EFFECT})
  section.require('use_dconv', False, False)
  config = DenseProjectionConfig()
  return Attention(config, _full(section, sizes), _dense_parts(config, sizes, averaged=False))


def _heads(section: Section, sizes: Sizes) -> Attention:
  section.require_known({'share_qk', 'chunk_len', 'bias', 'n_chunks_before', 'n_chunks_after', *_WITHOUT_EFFECT})
  section.require('chunk_len', None, None)
  section.require('bias', False, False)
  section.require('share_qk', False, False, True)
  config = DenseProjectionConfig(bias=False, share_qk=section.get('share_qk', False))
  attention = LSHAttentionConfig(full_below=_ALWAYS) if config.share_qk else _full(section, sizes)
  return Attention(config, attention, _heads_parts(config, sizes))


def _lsh_heads(section: Section, sizes: Sizes) -> Attention:
  section.require_known({'share_qk', *_LSH_FIELDS, *_WITHOUT_EFFECT})
  section.require('bias', False, False)
  config = DenseProjectionConfig(bias=False, share_qk=True)
  return Attention(config, _lsh(section, sizes), _heads_parts(config, sizes))


def _wrapped(section: Section, sizes: Sizes) -> Attention:
  section.require_known(
    {
      'pure_lsh_implementation',
      'bias',
      'num_weights',
      'sparsity',
      'weights_format',
      'rotary_position_emb',
      *_WITHOUT_EFFECT,
    }
  )
  section.require('rotary_position_emb', False, False)
  section.require('bias', True, True, False)
  section.require('num_weights', 3, 2, 3)
  section.require('weights_format', 'model', 'model', 'sparse')
  averaged = section.get('num_weights', 3) == 3
  inside = section.get('pure_lsh_implementation')
  if not isinstance(inside, Reference) or inside.name not in ('PureLSHSelfAttention', 'MixedLSHSelfAttention'):
    raise section.refused('pure_lsh_implementation', '@PureLSHSelfAttention or @MixedLSHSelfAttention')
  implementation = Section(section.gin, inside.name, inside.scope or section.scope)
  implementation.require_known({'share_qk', 'std_length', *_LSH_FIELDS, *_WITHOUT_EFFECT})
  attention = _lsh(implementation, sizes)
  if section.get('weights_format', 'model') == 'sparse':
    n_modules = section.whole('sparsity', 16)
    sparse = SparseProjectionConfig(n_modules, 3, _MODULE_KERNEL, share_qk=True)
    return Attention(sparse, attention, _sparse_parts(sparse, sizes, averaged))
  dense = DenseProjectionConfig(bias=section.get('bias', True), share_qk=True)
  return Attention(dense, attention, _dense_parts(dense, sizes, averaged))


def _multiplicative(section: Section, sizes: Sizes) -> Attention:
  fields = {'sparsity', 'length_kernel_size', 'share_qk', 'output_layer_type', 'v_concat_type'}
  section.require_known(fields | _WITHOUT_EFFECT)
  section.require('output_layer_type', 'none', 'none', 'mult', 'conv', 'multconv')
  section.require('v_concat_type', 'none', 'none', 'fixed', 'original')
  section.require('share_qk', False, False, True)
  behind, beside = section.get('output_layer_type', 'none'), section.get('v_concat_type', 'none')
  config = SparseProjectionConfig(
    _modules(section, sizes),
    section.whole('length_kernel_size', 3),
    _MODULE_KERNEL,
    share_qk=section.get('share_qk', False),
    value_reads_input=beside != 'none',
    value_by_module=beside != 'original',
    output_multiplicative='mult' in behind,
    output_convolution='conv' in behind,
  )
  return Attention(config, _full(section, sizes), _sparse_parts(config, sizes, averaged=False))


def _modular(section: Section, sizes: Sizes) -> Attention:
  section.require_known({'sparsity', *_WITHOUT_EFFECT})
  config = ModularProjectionConfig(_modules(section, sizes))
  return Attention(
    config,
    _full(section, sizes),
    lambda theirs, ours: parts.modular_projection(config, sizes.d_model, theirs, ours),
  )


def _modules(section: Section, sizes: Sizes) -> int:
  """By default as many as there are heads."""
  return sizes.n_heads if section.get('sparsity') is None else section.whole('sparsity', 0)


def _dropout(section: Section, sizes: Sizes) -> float:
  return 0.0 if section.truth('force_no_dropout', False) else sizes.dropout


def _full(section: Section, sizes: Sizes) -> FullAttentionConfig:
  return FullAttentionConfig(dropout=_dropout(section, sizes))


def _lsh(section: Section, sizes: Sizes) -> LSHAttentionConfig:
  chunk_length = section.whole('chunk_len', 128)
  before, after = section.whole('n_chunks_before', 1), section.whole('n_chunks_after', 0)
  n_rounds, n_buckets = section.whole('n_hashes', 1), section.get('n_buckets')
  plain_below = section.get('std_length')
  if plain_below is not None:
    plain_below = section.whole('std_length', 0)
  # Up to this length the chunks of a round hold all that a query may see, so that hashing changes nothing.
  seen = 1 + before + (0 if sizes.is_causal else after)
  config = LSHAttentionConfig(
    chunk_length=chunk_length,
    n_rounds=n_rounds,
    n_buckets=() if n_buckets is None else _factors(section, n_buckets),
    chunks_before=before,
    chunks_after=after,
    full_below=chunk_length * (seen if n_rounds == 1 else 1),
    plain_below=plain_below or 0,
    window=chunk_length * (1 + before),
    dropout=_dropout(section, sizes),
  )
  if n_buckets is None and section.get('max_length_for_buckets') is not None:
    factors = config.bucket_factors(section.whole('max_length_for_buckets', 0))
    return dataclasses.replace(config, n_buckets=factors)
  return config


def _factors(section: Section, n_buckets: Any) -> tuple[int, ...]:
  factors = tuple(n_buckets) if isinstance(n_buckets, (list, tuple)) else (n_buckets,)
  if not all(type(factor) is int for factor in factors):
    raise section.refused('n_buckets', 'a whole number or several')
  return factors


def _dense_parts(config: DenseProjectionConfig, sizes: Sizes, averaged: bool) -> Callable[[str, str], list[Part]]:
  return lambda theirs, ours: parts.dense_projection(config, sizes.d_model, averaged, theirs, ours)


def _heads_parts(config: DenseProjectionConfig, sizes: Sizes) -> Callable[[str, str], list[Part]]:
  return lambda theirs, ours: parts.heads_projection(config, sizes.d_model, sizes.n_heads, theirs, ours)


def _sparse_parts(config: SparseProjectionConfig, sizes: Sizes, averaged: bool) -> Callable[[str, str], list[Part]]:
  return lambda theirs, ours: parts.sparse_projection(config, sizes.d_model, averaged, theirs, ours)


_CLASSES: dict[str, Callable[[Section, Sizes], Attention]] = {
  'Attention': _dense,
  'CausalAttention': _dense,
  'SelfAttention': _heads,
  'LSHSelfAttention': _lsh_heads,
  'PureLSHSelfAttentionWrapper': _wrapped,
  'MultiplicativeConvCausalAttention': _multiplicative,
  'MultiplicativeModularCausalAttention': _modular,
}
