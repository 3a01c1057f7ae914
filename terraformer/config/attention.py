"""Queries, keys and values, and who attends to whom."""

import dataclasses
import math
from typing import ClassVar, Self

from terraformer.config.base import Family, divides, expect

# Each is a dimension of an array, or padded to, whatever the length of the sequence.
_MOST_BESIDE, _MOST_IN_CHUNK, _MOST_BUCKETS = 1024, 2**16, 2**20
_ALL = 2**31 - 1  # positions, more than there can be

# --- Queries, keys and values ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ProjectionConfig(Family):
  """How queries, keys and values are made; a kind in which keys may be the queries makes `share_qk` a field."""

  share_qk = False  # without an annotation, with which it would be the first field of every kind that makes it one

  def check_block(self, d_model: int, n_heads: int) -> None:
    """Raises UserError where it does not fit the layer that it is of."""


class _ByModule:
  """Of projections that cut d_model into modules."""

  n_modules: int

  def check_block(self, d_model: int, n_heads: int) -> None:
    """The modules must be of one width."""
    divides('BlockConfig.d_model', d_model, f'{type(self).__name__}.n_modules', self.n_modules)


@dataclasses.dataclass(frozen=True)
class DenseProjectionConfig(ProjectionConfig):
  """Queries, keys, values and the attention's output by dense matrices (d_model x d_model).

  Attributes:
    bias: whether they have biases.
    share_qk: whether keys are the queries (LSH attention needs it).
  """

  made_by: ClassVar = 'terraformer.layers.separate_qkv:DenseProjection'

  bias: bool = True
  share_qk: bool = False


@dataclasses.dataclass(frozen=True)
class SparseProjectionConfig(_ByModule, ProjectionConfig):
  """Queries, keys and values by one multiplicative dense layer and a small convolution each (paper, section 3.2).

  Attributes:
    n_modules: S in the paper; must divide d_model.
    length_kernel: positions that the convolutions see, the current one included; they look to the left only.
    module_kernel: neighbouring modules that the convolutions of queries and keys see; odd. That of values sees one.
    share_qk: whether keys are the queries (LSH attention needs it).
    value_reads_input: whether the convolution of values sees the layer's input as well as the multiplicative layer.
    value_by_module: whether that input is cut into modules of its own, each beside its multiplicative one ('fixed' in
      the authors' code); else the two lie one behind the other and are cut together ('original').
    output_multiplicative: whether a multiplicative dense layer follows attention.
    output_convolution: whether a convolution as that of queries follows attention, or that layer.
  """

  made_by: ClassVar = 'terraformer.layers.sparse_qkv:SparseProjection'

  n_modules: int = 16
  length_kernel: int = 3
  module_kernel: int = 3
  share_qk: bool = False
  value_reads_input: bool = False
  value_by_module: bool = True
  output_multiplicative: bool = False
  output_convolution: bool = False

  def check(self):
    self._sizes('n_modules')
    self._between(1, _MOST_BESIDE, 'length_kernel', 'module_kernel')
    expect(
      self.module_kernel % 2 == 1, f'SparseProjectionConfig.module_kernel: expected odd, found {self.module_kernel}'
    )


@dataclasses.dataclass(frozen=True)
class ModularProjectionConfig(_ByModule, ProjectionConfig):
  """Queries, keys, values and output by a multiplicative dense layer with a dense layer a module behind it.

  Attributes:
    n_modules: must divide d_model.
    share_qk: whether keys are the queries (LSH attention needs it).
  """

  made_by: ClassVar = 'terraformer.layers.separate_qkv:ModularProjection'

  n_modules: int = 16
  share_qk: bool = False

  def check(self):
    self._sizes('n_modules')


# --- Attention -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class AttentionConfig(Family):
  """Which keys a query sees. What others need to know of a kind it answers here; where a kind says nothing, what holds
  is right for any, if it costs more.

  Attributes:
    dropout: probability that an attention weight is dropped in training; a kind that has it makes it a field.
    needs_shared_qk: whether keys have to be the queries.
    needs_padding_mask: whether a causal layer has to be told which positions are padding, though no real position sees
      what follows it.
    reads_whole_cache: whether a step reads all keys and values of its cache, by the layer's method `read`.
    cross_chunk: queries of cross-attention whose scores are alive at one time; 0 for all of them.
  """

  dropout = 0.0  # without an annotation, as `ProjectionConfig.share_qk`
  needs_shared_qk: ClassVar[bool] = False
  needs_padding_mask: ClassVar[bool] = True
  reads_whole_cache: ClassVar[bool] = False

  @property
  def cross_chunk(self) -> int:
    return 0

  def check_block(self, projection: ProjectionConfig) -> None:
    """Raises UserError where it does not fit the projection of its layer."""
    expect(
      projection.share_qk or not self.needs_shared_qk,
      f'{type(projection).__name__}.share_qk: expected True with {type(self).__name__}, found False',
    )

  def can_grow(self, n_slots: int) -> bool:
    """Whether a cache that will have so many places may begin with fewer."""
    return False

  def keys_seen(self, context: int) -> int:
    """Keys that one token reads, at most, behind `context` others."""
    return context

  def decoding_form(self, longest: int, query_chunk: int) -> Self:
    """The same attention as it is decoded with, of the same results.

    Args:
      longest: tokens of an example that the model was trained on.
      query_chunk: queries whose scores may be alive at one time.
    """
    return self


@dataclasses.dataclass(frozen=True)
class FullAttentionConfig(AttentionConfig):
  """Every query sees every key that it may see.

  Attributes:
    query_chunk: queries whose scores are alive at one time, in training as well; 0 for all of them.
    dropout: probability that an attention weight is dropped in training.
  """

  made_by: ClassVar = 'terraformer.layers.attention:Attention'

  query_chunk: int = 0
  dropout: float = 0.0

  needs_padding_mask: ClassVar[bool] = False
  reads_whole_cache: ClassVar[bool] = True

  def check(self):
    self._at_least(0, 'query_chunk')
    self._probability('dropout')

  @property
  def cross_chunk(self) -> int:
    return self.query_chunk

  def can_grow(self, n_slots: int) -> bool:
    """Always."""
    return True

  def decoding_form(self, longest: int, query_chunk: int) -> Self:
    """A chunk of queries at a time."""
    return dataclasses.replace(self, query_chunk=self.query_chunk or query_chunk)


@dataclasses.dataclass(frozen=True)
class LSHAttentionConfig(AttentionConfig):
  """A query sees the keys that a random projection puts near it (Reformer, Kitaev et al., 2020); keys are queries.

  Attributes:
    chunk_length: sorted positions that attend to each other and to the chunks beside them.
    n_rounds: independent hashes; a key needs to be near in one of them.
    n_buckets: buckets of a hash, as factors of even numbers whose product it is; () for two a chunk.
    chunks_before: chunks before its own that a query sees.
    chunks_after: chunks after its own that it sees as well where attention is not causal.
    full_below: longest sequence, or cache, whose queries see all keys instead.
    window: most recent keys of its bucket, in each round, that one token sees where tokens come one by one.
    dropout: probability that an attention weight is dropped in training.
    seed: of the hashes in evaluation and decoding, which are always the same.
    plain_below: longest sequence, or cache, whose queries see all keys, their own included, by dot products with
      queries that are not normalized (the authors' `MixedLSHSelfAttention`); 0 for none. It counts before `full_below`.
  """

  made_by: ClassVar = 'terraformer.layers.lsh_attention:LSHAttention'

  chunk_length: int = 128
  n_rounds: int = 2
  n_buckets: tuple[int, ...] = ()
  chunks_before: int = 1
  chunks_after: int = 1
  full_below: int = 256
  window: int = 128
  dropout: float = 0.0
  seed: int = 0
  plain_below: int = 0

  _wide = ('seed',)
  needs_shared_qk: ClassVar[bool] = True

  def check(self):
    self._between(1, _MOST_IN_CHUNK, 'chunk_length', 'window')
    self._between(1, _MOST_BESIDE, 'n_rounds')
    self._between(0, _MOST_BESIDE, 'chunks_before', 'chunks_after')
    self._at_least(0, 'full_below', 'plain_below')
    self._probability('dropout')
    self._seed('seed')
    for factor in self.n_buckets:
      expect(
        factor >= 2 and factor % 2 == 0,
        f'LSHAttentionConfig.n_buckets: expected even factors, found {self.n_buckets}',
      )
    expect(
      math.prod(self.n_buckets) <= _MOST_BUCKETS,
      f'LSHAttentionConfig.n_buckets: expected a product of at most {_MOST_BUCKETS}, found {self.n_buckets}',
    )

  @property
  def cross_chunk(self) -> int:
    """As long as those that attend to each other, which has no meaning there but is of a size that fits."""
    return self.chunk_length

  def can_grow(self, n_slots: int) -> bool:
    """Not where positions are hashed, by the cache's final size, nor from one kind of scores to another."""
    return n_slots <= (self.plain_below or self.full_below)

  def keys_seen(self, context: int) -> int:
    """All as far as the cache is seen in whole; else the window of each round."""
    most = max(self.full_below, self.plain_below)
    return context if context <= most else min(context, self.n_rounds * self.window)

  def decoding_form(self, longest: int, query_chunk: int) -> Self:
    """What sees so many in whole does so when it decodes, whatever the padding of a batch adds."""
    if longest <= self.plain_below:
      return dataclasses.replace(self, plain_below=_ALL)
    return dataclasses.replace(self, full_below=_ALL) if longest <= self.full_below else self

  def bucket_factors(self, length: int) -> tuple[int, ...]:
    """The factors of the bucket count for sequences of `length`: as configured, or two buckets a chunk.

    A count above 128 is split into two factors near its root, so that a hash projects on hundreds of directions.
    """
    if self.n_buckets:
      return self.n_buckets
    count = 2 * max(1, length // self.chunk_length)
    if count <= 128:
      return (count,)
    root = 2 * math.ceil(math.sqrt(count) / 2)
    return (root, 2 * math.ceil(count / root / 2))
