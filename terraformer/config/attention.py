"""Projections to queries, keys and values, and attention."""

import dataclasses
import math
from collections.abc import Hashable
from typing import ClassVar, Self

from terraformer.config.base import Family, divides, expect
from terraformer.config.words import flag

# Limits for sizes that become a dimension of an array, or padding, for any length of the sequence.
_MOST_BESIDE, _MOST_IN_CHUNK, _MOST_BUCKETS = 1024, 2**16, 2**20
_ALL = 2**31 - 1  # positions, more than any sequence can have

# --- Queries, keys and values ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ProjectionConfig(Family):
  """How queries, keys and values are made. Kinds that can use the queries as keys make `share_qk` a field."""

  share_qk = False  # no annotation, or else it would be the first field of every kind that makes it a field

  def check_block(self, d_model: int, n_heads: int) -> None:
    """Raises UserError if the projection does not fit its layer."""


class _ByModule:
  """The check of projections that split d_model into modules."""

  n_modules: int

  def check_block(self, d_model: int, n_heads: int) -> None:
    """Raises UserError unless all modules have the same width."""
    divides('BlockConfig.d_model', d_model, f'{type(self).__name__}.n_modules', self.n_modules)


@dataclasses.dataclass(frozen=True)
class DenseProjectionConfig(ProjectionConfig):
  """Dense matrices (d_model x d_model) for queries, keys, values and the output of attention.

  Attributes:
    bias: whether they have biases.
    share_qk: whether keys are the queries (LSH attention needs it).
  """

  made_by: ClassVar = 'terraformer.layers.separate_qkv:DenseProjection'

  bias: bool = True
  share_qk: bool = False


@dataclasses.dataclass(frozen=True)
class SparseProjectionConfig(_ByModule, ProjectionConfig):
  """One shared multiplicative dense layer, then a small convolution each for queries, keys and values (paper, section
  3.2).

  Attributes:
    n_modules: S in the paper; must divide d_model.
    length_kernel: positions that the convolutions see, the current one and earlier ones.
    module_kernel: neighboring modules that the convolutions of queries and keys see; odd. That of values sees one.
    share_qk: whether keys are the queries (LSH attention needs it).
    value_reads_input: whether the convolution of values sees the layer's input in addition to the multiplicative layer.
    value_by_module: whether that input is split into its own modules, each next to its multiplicative one ('fixed' in
      the authors' code); otherwise the two are concatenated and then split ('original').
    output_multiplicative: whether a multiplicative dense layer follows attention.
    output_convolution: whether a convolution like that of queries follows attention, or that layer.
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
      self.module_kernel % 2 == 1,
      f'SparseProjectionConfig.module_kernel: expected an odd number, found {self.module_kernel}',
    )


@dataclasses.dataclass(frozen=True)
class ModularProjectionConfig(_ByModule, ProjectionConfig):
  """A multiplicative dense layer, then a dense layer per module, for queries, keys, values and output.

  Attributes:
    n_modules: number of modules; must divide d_model.
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
  """Which keys a query sees. A kind overrides the answers below that other code needs; the defaults are correct for any
  kind, but may cost more.

  Attributes:
    dropout: probability that an attention weight is dropped in training; a kind that supports it makes it a field.
    needs_shared_qk: whether keys must be the queries.
    needs_padding_mask: whether a causal layer needs to know which positions are padding, although no real position sees
      later ones.
    reads_whole_cache: whether a step reads all keys and values of its cache, with the layer's method `read`.
    cross_chunk: queries that cross-attention processes at a time, to bound memory; 0 for all.
  """

  dropout = 0.0  # no annotation, for the same reason as `ProjectionConfig.share_qk`
  needs_shared_qk: ClassVar[bool] = False
  needs_padding_mask: ClassVar[bool] = True
  reads_whole_cache: ClassVar[bool] = False

  @property
  def cross_chunk(self) -> int:
    return 0

  def check_block(self, projection: ProjectionConfig) -> None:
    """Raises UserError if the attention does not fit the projection of its layer."""
    expect(
      projection.share_qk or not self.needs_shared_qk,
      f'{type(self).__name__} uses the queries as keys; share them with '
      + flag(f'{type(projection).__name__}.share_qk', 'True'),
    )

  def can_grow(self, n_slots: int) -> bool:
    """Returns whether a cache that will need `n_slots` slots can start smaller."""
    return False

  def cache_form(self, capacity: int) -> Hashable:
    """Returns a value that is equal for two capacities of a cache if a step computes the same in both."""
    return None

  def keys_seen(self, context: int) -> int:
    """Returns the maximum number of keys that a token reads after `context` others."""
    return context

  def decoding_form(self, longest: int, query_chunk: int) -> Self:
    """Returns the config for decoding, which gives the same results.

    Args:
      longest: number of positions that the stack attends to in training.
      query_chunk: number of queries to process at a time, to bound memory.
    """
    return self


@dataclasses.dataclass(frozen=True)
class FullAttentionConfig(AttentionConfig):
  """Every query sees every key that the mask allows.

  Attributes:
    query_chunk: queries that are processed at a time, also in training, to bound memory; 0 for all.
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
    """Returns True."""
    return True

  def decoding_form(self, longest: int, query_chunk: int) -> Self:
    """Returns the config with queries in chunks."""
    return dataclasses.replace(self, query_chunk=self.query_chunk or query_chunk)


@dataclasses.dataclass(frozen=True)
class LSHAttentionConfig(AttentionConfig):
  """A query sees the keys that a random projection hashes near it (Reformer, Kitaev et al., 2020); keys are queries.

  Attributes:
    chunk_length: number of sorted positions in a chunk, which attend to each other and to neighboring chunks.
    n_rounds: number of independent hashes; a query sees a key if they are near in any of them.
    n_buckets: number of buckets of a hash, given as even factors of it; () for two buckets per chunk.
    chunks_before: number of chunks before its own that a query sees.
    chunks_after: number of chunks after its own that a query sees, unless attention is causal.
    full_below: maximum length of a sequence, or cache, for which queries see all keys instead.
    window: number of most recent keys in its bucket that a token sees in each round of step-by-step decoding.
    dropout: probability that an attention weight is dropped in training.
    seed: seed of the hashes in evaluation and decoding, which are always the same.
    plain_below: maximum length of a sequence, or cache, for which queries see all keys, including their own, by dot
      products with queries that are not normalized (the authors' `MixedLSHSelfAttention`); 0 for none. It takes
      precedence over `full_below`. In decoding, the lengths that examples were padded to in training count.
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
    """Returns the chunk length, which has no meaning in cross-attention but is a suitable size."""
    return self.chunk_length

  def can_grow(self, n_slots: int) -> bool:
    """Returns False if positions are hashed, since the hash depends on the cache's final size, and if the scores would
    change with the size."""
    return n_slots <= (self.plain_below or self.full_below)

  def cache_form(self, capacity: int) -> Hashable:
    """Returns how a query sees the keys: plainly, hashed into which buckets, or all of them."""
    return self.is_plain(capacity), self.hashed_into(capacity)

  def is_plain(self, capacity: int) -> bool:
    """Returns whether attention in a cache of this capacity is that of `plain_below`."""
    return 0 < self.plain_below >= capacity

  def hashed_into(self, capacity: int) -> tuple[int, ...]:
    """Returns the factors of the number of buckets, or () for a cache that a query sees in full."""
    return () if capacity <= max(self.full_below, self.plain_below) else self.bucket_factors(capacity)

  def keys_seen(self, context: int) -> int:
    """Returns `context` if the cache is short enough to be seen in full; otherwise the windows of all rounds."""
    most = max(self.full_below, self.plain_below)
    return context if context <= most else min(context, self.n_rounds * self.window)

  def decoding_form(self, longest: int, query_chunk: int) -> Self:
    """Returns a config that scores as in training, where all examples are padded to `longest`, whatever the length."""
    if longest <= self.plain_below:
      return dataclasses.replace(self, plain_below=_ALL)
    return dataclasses.replace(self, plain_below=0, full_below=_ALL if longest <= self.full_below else self.full_below)

  def bucket_factors(self, length: int) -> tuple[int, ...]:
    """Returns the factors of the number of buckets for sequences of `length`: as configured, or two buckets per chunk.

    A count above 128 is split into two factors near its square root, so that a hash projects on only hundreds of
    directions.
    """
    if self.n_buckets:
      return self.n_buckets
    count = 2 * max(1, length // self.chunk_length)
    if count <= 128:
      return (count,)
    root = 2 * math.ceil(math.sqrt(count) / 2)
    return (root, 2 * math.ceil(count / root / 2))
