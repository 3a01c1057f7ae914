"""Queries, keys and values, and who attends to whom."""

import dataclasses
import math
from typing import ClassVar

from terraformer.config.base import Checked, expect

# Each is a dimension of an array, or padded to, whatever the length of the sequence.
_MOST_BESIDE, _MOST_IN_CHUNK, _MOST_BUCKETS = 1024, 2**16, 2**20

# --- Queries, keys and values ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DenseProjectionConfig(Checked):
  """Queries, keys, values and the attention's output by dense matrices (d_model x d_model).

  Attributes:
    bias: whether they have biases.
    share_qk: whether keys are the queries (LSH attention needs it).
  """

  bias: bool = True
  share_qk: bool = False


@dataclasses.dataclass(frozen=True)
class SparseProjectionConfig(Checked):
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
class ModularProjectionConfig(Checked):
  """Queries, keys, values and output by a multiplicative dense layer with a dense layer a module behind it.

  Attributes:
    n_modules: must divide d_model.
    share_qk: whether keys are the queries (LSH attention needs it).
  """

  n_modules: int = 16
  share_qk: bool = False

  def check(self):
    self._sizes('n_modules')


# --- Attention -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FullAttentionConfig(Checked):
  """Every query sees every key that it may see.

  Attributes:
    query_chunk: queries whose scores are alive at one time, in training as well; 0 for all of them.
    dropout: probability that an attention weight is dropped in training.
  """

  query_chunk: int = 0
  dropout: float = 0.0

  def check(self):
    self._at_least(0, 'query_chunk')
    self._dropout('dropout')


@dataclasses.dataclass(frozen=True)
class LSHAttentionConfig(Checked):
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
  """

  chunk_length: int = 128
  n_rounds: int = 2
  n_buckets: tuple[int, ...] = ()
  chunks_before: int = 1
  chunks_after: int = 1
  full_below: int = 256
  window: int = 128
  dropout: float = 0.0
  seed: int = 0

  _wide: ClassVar[tuple[str, ...]] = ('seed',)

  def check(self):
    self._between(1, _MOST_IN_CHUNK, 'chunk_length', 'window')
    self._between(1, _MOST_BESIDE, 'n_rounds')
    self._between(0, _MOST_BESIDE, 'chunks_before', 'chunks_after')
    self._at_least(0, 'full_below')
    self._dropout('dropout')
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
