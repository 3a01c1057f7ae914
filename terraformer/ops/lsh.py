"""LSH attention: a query attends to keys that hash to buckets near its own (Reformer, Kitaev et al., 2020).

Positions are sorted by the bucket of their query and cut into chunks; a query sees its own chunk and the neighboring
chunks. Several rounds, each with its own hashes, share one softmax: a key seen twice counts twice. The sorted rounds
form a ring: the first chunk of a round also sees the last chunk of the previous round, and the first round follows
the last (as in the authors' code).

Time and memory are linear in the length, forward and backward: a few chunks at a time are gathered from the unsorted
arrays. The backward pass is written by hand. It recomputes the scores, group by group, and moves sorted gradients back
through the inverse permutation; automatic differentiation would store the scores and scatter rows.

B batch, H heads, T time, P time padded to whole chunks, K head width, R rounds, C positions per chunk, G chunks per
group (a group is computed at once), E chunks that a group reads, A neighboring chunks of a round, I positions of some
chunks, Z sorted positions of a round and of its neighboring chunks, W keys that a chunk sees.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.ops.lsh_hash import sort_by_bucket
from terraformer.ops.shared_qk import unit_keys

# Position of a key that no query sees.
UNSEEN = np.iinfo(np.int32).max
# Replaces a masked score. It is so far below `_ALONE` that its weight is exactly 0.
_MASK_VALUE = -1e30
# Lower bound of the largest score. A query whose log-sum-exp is below it sees no other key.
_ALONE = -1e20
# Queries per group, over all examples and heads. More are no faster, and fewer leave a CPU's caches half empty.
_GROUP_QUERIES = 2048

# --- Chunks -----------------------------------------------------------------------------------------------------------


def _ranks(order_BxHxP: jax.Array) -> jax.Array:
  """Returns the rank of each position in the order, which is the inverse permutation."""
  rank_P = jnp.arange(order_BxHxP.shape[-1], dtype=jnp.int32)
  return jax.vmap(jax.vmap(lambda order_P: rank_P.at[order_P].set(rank_P, unique_indices=True)))(order_BxHxP)


def _take(x_BxHxPx: jax.Array, position_BxHxI: jax.Array) -> jax.Array:
  """Returns `x` at the given positions, which differ between examples and heads."""
  position = position_BxHxI.reshape(*position_BxHxI.shape, *[1] * (x_BxHxPx.ndim - 3))
  return jnp.take_along_axis(x_BxHxPx, position, axis=2, mode='promise_in_bounds')


@dataclasses.dataclass(frozen=True)
class _Chunks:
  """How sorted rounds are cut into chunks, and chunks into groups. The last group may extend past its round."""

  n_rounds: int
  n_chunks: int
  length: int
  before: int
  after: int
  group: int
  causal: bool

  @property
  def n_groups(self) -> int:
    return -(-self.n_chunks // self.group)

  @property
  def group_rows(self) -> int:
    return self.group * self.length

  @property
  def n_neighbors(self) -> int:
    return self.before + self.after

  def _of_ring(self, order_BxHxRxP: jax.Array, chunk: np.ndarray) -> jax.Array:
    """Returns the positions of chunks: R x ... x B x H x C. `chunk`, R x ..., counts from the first of its round."""
    batch, n_heads = order_BxHxRxP.shape[:2]
    ring = order_BxHxRxP.reshape(batch, n_heads, self.n_rounds * self.n_chunks, self.length)
    first = np.arange(self.n_rounds).reshape(-1, *[1] * (chunk.ndim - 1)) * self.n_chunks
    return jnp.moveaxis(jnp.take(ring, (first + chunk) % ring.shape[2], axis=2), (0, 1), (-3, -2))

  def read(self, order_BxHxRxP: jax.Array) -> jax.Array:
    """Returns the positions that each group reads: R x groups x E x B x H x C."""
    chunk = np.arange(self.n_groups)[:, None] * self.group + np.arange(self.group + self.n_neighbors) - self.before
    return self._of_ring(order_BxHxRxP, chunk[None])

  def neighbors(self, order_BxHxRxP: jax.Array) -> jax.Array:
    """Returns the positions that a round reads of other rounds, before and after it: R x A x B x H x C."""
    chunk = np.concatenate([np.arange(-self.before, 0), np.arange(self.after) + self.n_chunks])
    return self._of_ring(order_BxHxRxP, chunk[None])

  def own(self, x_BxHxExCx: jax.Array) -> jax.Array:
    """Returns a group's own chunks from those that it reads."""
    return x_BxHxExCx[:, :, self.before : self.before + self.group]

  def windows(self, x_BxHxExCx: jax.Array) -> jax.Array:
    """Returns what each chunk sees: the chunks before it, itself and the chunks after it. B x H x G x W x ..."""
    return jnp.concatenate([x_BxHxExCx[:, :, i : i + self.group] for i in range(self.n_neighbors + 1)], axis=3)

  def fold_windows(self, x_BxHxGxWxK: jax.Array) -> jax.Array:
    """Returns the transpose of `windows`: for each chunk, the sum over the windows that contain it. BxHxExCxK."""
    total_BxHxExCxK = 0
    for i in range(self.n_neighbors + 1):
      part_BxHxGxCxK = x_BxHxGxWxK[:, :, :, i * self.length : (i + 1) * self.length]
      total_BxHxExCxK += jnp.pad(part_BxHxGxCxK, ((0, 0), (0, 0), (i, self.n_neighbors - i), (0, 0), (0, 0)))
    return total_BxHxExCxK


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Inputs:
  """The inputs that have no gradient.

  Attributes:
    order_BxHxRxP: positions in the sorted order of each round.
    key_position_BxP: position of each key, compared with that of a query; UNSEEN for a key that no query sees.
    segment_BxP: segments of packed rows, which do not see each other; else None.
    keep_RxHxCxW: factors of the attention weights, 0 for a dropped one, the same for all chunks. None without dropout.
  """

  order_BxHxRxP: jax.Array
  key_position_BxP: jax.Array
  segment_BxP: jax.Array | None
  keep_RxHxCxW: jax.Array | None


def _group_scores(chunks: _Chunks, q_BxHxPxK, v_BxHxPxK, inputs: _Inputs, position_ExBxHxC):
  """Returns queries, keys and values of a group, its own positions, and the scores of its queries BxHxGxCxW."""
  position_BxHxExC = jnp.moveaxis(position_ExBxHxC, 0, 2)
  batch, n_heads = position_BxHxExC.shape[:2]
  flat_BxHxI = position_BxHxExC.reshape(batch, n_heads, -1)
  q_BxHxExCxK = _take(q_BxHxPxK, flat_BxHxI).reshape(*position_BxHxExC.shape, -1)
  v_BxHxExCxK = _take(v_BxHxPxK, flat_BxHxI).reshape(*position_BxHxExC.shape, -1)

  def at_positions(x_BxP):
    x_BxI = jnp.take_along_axis(x_BxP, flat_BxHxI.reshape(batch, -1), axis=1, mode='promise_in_bounds')
    return x_BxI.reshape(position_BxHxExC.shape)

  key_position_BxHxExC = at_positions(inputs.key_position_BxP)
  k_BxHxGxWxK = chunks.windows(unit_keys(q_BxHxExCxK))
  own_BxHxGxC = chunks.own(position_BxHxExC)
  at_query, at_key = own_BxHxGxC[..., None], chunks.windows(key_position_BxHxExC)[..., None, :]
  mask_BxHxGxCxW = at_key < at_query if chunks.causal else (at_key != at_query) & (at_key != UNSEEN)
  if inputs.segment_BxP is not None:
    segment_BxHxExC = at_positions(inputs.segment_BxP)
    own_segment_BxHxGxC = chunks.own(segment_BxHxExC)
    mask_BxHxGxCxW &= own_segment_BxHxGxC[..., None] == chunks.windows(segment_BxHxExC)[..., None, :]
  q_BxHxGxCxK = chunks.own(q_BxHxExCxK)
  score_BxHxGxCxW = jnp.einsum('BHGCK,BHGWK->BHGCW', q_BxHxGxCxK, k_BxHxGxWxK, preferred_element_type=jnp.float32)
  score_BxHxGxCxW = jnp.where(mask_BxHxGxCxW, score_BxHxGxCxW, _MASK_VALUE)
  return q_BxHxExCxK, k_BxHxGxWxK, chunks.windows(v_BxHxExCxK), own_BxHxGxC, score_BxHxGxCxW


# --- Attention -------------------------------------------------------------------------------------------------------


def _forward(chunks: _Chunks, q_BxHxPxK, v_BxHxPxK, inputs: _Inputs) -> tuple[jax.Array, jax.Array]:
  """Returns the result BxHxPxK and the log-sum-exp BxHxP of each query's scores in all rounds."""
  batch, n_heads, _, width = q_BxHxPxK.shape
  sorted_shape = (batch, n_heads, chunks.n_groups * chunks.group_rows)

  def one_round(total, per_round):
    order_BxHxP, position_xExBxHxC, keep_HxCxW = per_round

    def one_group(buffers, per_group):
      index, position_ExBxHxC = per_group
      *_, v_BxHxGxWxK, _, score_BxHxGxCxW = _group_scores(chunks, q_BxHxPxK, v_BxHxPxK, inputs, position_ExBxHxC)
      largest_BxHxGxCx1 = jnp.maximum(score_BxHxGxCxW.max(-1, keepdims=True), _ALONE)
      weight_BxHxGxCxW = jnp.exp(score_BxHxGxCxW - largest_BxHxGxCx1)
      sum_BxHxGxC = weight_BxHxGxCxW.sum(-1)
      if keep_HxCxW is not None:
        weight_BxHxGxCxW *= keep_HxCxW[:, None]
      y_BxHxGxCxK = jnp.einsum(
        'BHGCW,BHGWK->BHGCK', weight_BxHxGxCxW.astype(v_BxHxGxWxK.dtype), v_BxHxGxWxK,
        preferred_element_type=jnp.float32,
      )  # fmt: skip
      seen_BxHxGxC = sum_BxHxGxC > 0
      sum_BxHxGxC = jnp.where(seen_BxHxGxC, sum_BxHxGxC, 1)
      y_BxHxGxCxK /= sum_BxHxGxC[..., None]
      lse_BxHxGxC = jnp.where(seen_BxHxGxC, largest_BxHxGxCx1[..., 0] + jnp.log(sum_BxHxGxC), _MASK_VALUE)
      y_BxHxZxK, lse_BxHxZ = buffers
      y_BxHxZxK = jax.lax.dynamic_update_slice_in_dim(
        y_BxHxZxK, y_BxHxGxCxK.reshape(batch, n_heads, -1, width), index * chunks.group_rows, axis=2
      )
      lse_BxHxZ = jax.lax.dynamic_update_slice_in_dim(
        lse_BxHxZ, lse_BxHxGxC.reshape(batch, n_heads, -1), index * chunks.group_rows, axis=2
      )
      return (y_BxHxZxK, lse_BxHxZ), None

    buffers = jnp.zeros((*sorted_shape, width)), jnp.zeros(sorted_shape)
    (sorted_y, sorted_lse), _ = jax.lax.scan(one_group, buffers, (jnp.arange(chunks.n_groups), position_xExBxHxC))
    rank_BxHxP = _ranks(order_BxHxP)
    y_BxHxPxK, lse_BxHxP = total
    round_lse_BxHxP = _take(sorted_lse, rank_BxHxP)
    both_BxHxP = jnp.logaddexp(lse_BxHxP, round_lse_BxHxP)
    y_BxHxPxK *= jnp.exp(lse_BxHxP - both_BxHxP)[..., None]
    y_BxHxPxK += _take(sorted_y, rank_BxHxP) * jnp.exp(round_lse_BxHxP - both_BxHxP)[..., None]
    return (y_BxHxPxK, both_BxHxP), None

  order_RxBxHxP = jnp.moveaxis(inputs.order_BxHxRxP, 2, 0)
  nothing = jnp.zeros(q_BxHxPxK.shape, jnp.float32), jnp.full(q_BxHxPxK.shape[:3], _MASK_VALUE)
  per_round = (order_RxBxHxP, chunks.read(inputs.order_BxHxRxP), inputs.keep_RxHxCxW)
  (y_BxHxPxK, lse_BxHxP), _ = jax.lax.scan(one_round, nothing, per_round)
  alone_BxHxPx1 = (lse_BxHxP < _ALONE)[..., None]
  return jnp.where(alone_BxHxPx1, v_BxHxPxK, y_BxHxPxK).astype(v_BxHxPxK.dtype), lse_BxHxP


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(chunks: _Chunks, q_BxHxPxK: jax.Array, v_BxHxPxK: jax.Array, inputs: _Inputs) -> jax.Array:
  return _forward(chunks, q_BxHxPxK, v_BxHxPxK, inputs)[0]


def _attend_forward(chunks, q_BxHxPxK, v_BxHxPxK, inputs):
  y_BxHxPxK, lse_BxHxP = _forward(chunks, q_BxHxPxK, v_BxHxPxK, inputs)
  return y_BxHxPxK, (q_BxHxPxK, v_BxHxPxK, inputs, y_BxHxPxK, lse_BxHxP)


def _attend_backward(chunks, saved, d_y_BxHxPxK):
  q_BxHxPxK, v_BxHxPxK, inputs, y_BxHxPxK, lse_BxHxP = saved
  batch, n_heads, _, width = q_BxHxPxK.shape
  before, round_rows = chunks.before * chunks.length, chunks.n_chunks * chunks.length
  sorted_shape = (batch, n_heads, chunks.n_groups * chunks.group_rows + chunks.n_neighbors * chunks.length, width)
  alone_BxHxP = lse_BxHxP < _ALONE
  lse_BxHxP = jnp.where(alone_BxHxP, -_MASK_VALUE, lse_BxHxP)  # makes all weights 0
  # Sum over keys of each weight times its gradient; the gradient of the softmax subtracts it.
  mean_BxHxP = jnp.einsum('BHPK,BHPK->BHP', d_y_BxHxPxK, y_BxHxPxK, preferred_element_type=jnp.float32)

  def group_gradients(index, position_ExBxHxC, keep_HxCxW):
    """Returns gradients of the queries (also used as keys) and values that a group reads, BxHxExCxK each."""
    q_BxHxExCxK, k_BxHxGxWxK, v_BxHxGxWxK, own_BxHxGxC, score_BxHxGxCxW = _group_scores(
      chunks, q_BxHxPxK, v_BxHxPxK, inputs, position_ExBxHxC
    )
    own_BxHxI = own_BxHxGxC.reshape(batch, n_heads, -1)
    d_y_BxHxGxCxK = _take(d_y_BxHxPxK, own_BxHxI).reshape(*own_BxHxGxC.shape, width)
    lse_BxHxGxC, mean_BxHxGxC = (_take(x, own_BxHxI).reshape(own_BxHxGxC.shape) for x in (lse_BxHxP, mean_BxHxP))
    in_round_Gx1 = (index * chunks.group + jnp.arange(chunks.group) < chunks.n_chunks)[:, None]
    lse_BxHxGxC = jnp.where(in_round_Gx1, lse_BxHxGxC, -_MASK_VALUE)
    weight_BxHxGxCxW = jnp.exp(score_BxHxGxCxW - lse_BxHxGxC[..., None])
    contract = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    d_weight_BxHxGxCxW = contract('BHGCK,BHGWK->BHGCW', d_y_BxHxGxCxK, v_BxHxGxWxK)
    kept_BxHxGxCxW = weight_BxHxGxCxW
    if keep_HxCxW is not None:
      d_weight_BxHxGxCxW *= keep_HxCxW[:, None]
      kept_BxHxGxCxW *= keep_HxCxW[:, None]
    d_score_BxHxGxCxW = weight_BxHxGxCxW * (d_weight_BxHxGxCxW - mean_BxHxGxC[..., None])
    d_score_BxHxGxCxW = d_score_BxHxGxCxW.astype(q_BxHxPxK.dtype)
    kept_BxHxGxCxW = kept_BxHxGxCxW.astype(v_BxHxPxK.dtype)
    d_v_BxHxExCxK = chunks.fold_windows(contract('BHGCW,BHGCK->BHGWK', kept_BxHxGxCxW, d_y_BxHxGxCxK))
    d_k_BxHxGxWxK = contract('BHGCW,BHGCK->BHGWK', d_score_BxHxGxCxW, chunks.own(q_BxHxExCxK))
    d_q_BxHxGxCxK = contract('BHGCW,BHGWK->BHGCK', d_score_BxHxGxCxW, k_BxHxGxWxK)
    _, pull_back = jax.vjp(unit_keys, q_BxHxExCxK.astype(jnp.float32))
    (d_q_BxHxExCxK,) = pull_back(chunks.fold_windows(d_k_BxHxGxWxK))
    padding = ((0, 0), (0, 0), (chunks.before, chunks.after), (0, 0), (0, 0))
    return d_q_BxHxExCxK + jnp.pad(d_q_BxHxGxCxK, padding), d_v_BxHxExCxK

  def one_round(totals, per_round):
    order_BxHxP, position_xExBxHxC, neighbor_AxBxHxC, keep_HxCxW = per_round

    def one_group(buffers, per_group):
      index, position_ExBxHxC = per_group
      start = index * chunks.group_rows

      def add(buffer_BxHxZxK, d_BxHxExCxK):
        d_BxHxIxK = d_BxHxExCxK.reshape(batch, n_heads, -1, width)
        d_BxHxIxK += jax.lax.dynamic_slice_in_dim(buffer_BxHxZxK, start, d_BxHxIxK.shape[2], axis=2)
        return jax.lax.dynamic_update_slice_in_dim(buffer_BxHxZxK, d_BxHxIxK, start, axis=2)

      return tuple(map(add, buffers, group_gradients(index, position_ExBxHxC, keep_HxCxW))), None

    buffers = jnp.zeros(sorted_shape), jnp.zeros(sorted_shape)
    buffers, _ = jax.lax.scan(one_group, buffers, (jnp.arange(chunks.n_groups), position_xExBxHxC))
    rank_BxHxP = _ranks(order_BxHxP)
    neighbor_BxHxI = jnp.moveaxis(neighbor_AxBxHxC, 0, 2).reshape(batch, n_heads, -1)

    def collect(total_BxHxPxK, sorted_BxHxZxK):
      total_BxHxPxK += _take(sorted_BxHxZxK, before + rank_BxHxP)
      end = before + round_rows
      rows_BxHxIxK = jnp.concatenate(
        [sorted_BxHxZxK[:, :, :before], sorted_BxHxZxK[:, :, end : end + chunks.after * chunks.length]], axis=2
      )
      # Neighboring chunks in other rounds: a few rows, however long the sequence.
      return jax.vmap(jax.vmap(lambda total, at, rows: total.at[at].add(rows)))(
        total_BxHxPxK, neighbor_BxHxI, rows_BxHxIxK
      )

    return tuple(map(collect, totals, buffers)), None

  d_own_BxHxPxK = jnp.where(alone_BxHxP[..., None], d_y_BxHxPxK, 0).astype(jnp.float32)
  order_BxHxRxP = inputs.order_BxHxRxP
  per_round = (
    jnp.moveaxis(order_BxHxRxP, 2, 0), chunks.read(order_BxHxRxP), chunks.neighbors(order_BxHxRxP), inputs.keep_RxHxCxW
  )  # fmt: skip
  totals = jnp.zeros(q_BxHxPxK.shape, jnp.float32), d_own_BxHxPxK
  (d_q_BxHxPxK, d_v_BxHxPxK), _ = jax.lax.scan(one_round, totals, per_round)
  return d_q_BxHxPxK.astype(q_BxHxPxK.dtype), d_v_BxHxPxK.astype(v_BxHxPxK.dtype), None


_attend.defvjp(_attend_forward, _attend_backward)


def attend_in_buckets(
  q_BxHxTxK: jax.Array,
  v_BxHxTxK: jax.Array,
  buckets_BxHxRxT: jax.Array,
  key_position_BxT: jax.Array,
  segment_BxT: jax.Array | None = None,
  *,
  n_buckets: int,
  chunk_length: int,
  chunks_before: int = 1,
  chunks_after: int = 0,
  causal: bool = True,
  rate: float = 0.0,
  key: jax.Array | None = None,
) -> jax.Array:
  """Returns attention within the given buckets. `lsh_attention` derives the arguments from padding.

  Args:
    q_BxHxTxK, v_BxHxTxK: queries, which are also the keys, and values.
    buckets_BxHxRxT: bucket of each query in each round, from 0 to `n_buckets` - 1.
    key_position_BxT: position of each key, compared with that of a query: a query sees no key at its own position, and
      a causal query only keys at smaller ones. UNSEEN hides a key.
    segment_BxT: segments of packed rows, which do not see each other; else None.
    n_buckets: number of buckets.
    chunk_length, chunks_before, chunks_after: positions per chunk, and how many chunks on each side a query sees.
    causal: whether a query sees only earlier positions.
    rate: dropout rate of the attention weights. One mask per head and round serves all chunks and examples.
    key: random key for the dropout; None for no dropout.

  Returns:
    BxHxTxK. A query that sees no other key gets its own value.
  """
  batch, n_heads, length, _ = q_BxHxTxK.shape
  n_rounds, n_chunks = buckets_BxHxRxT.shape[2], -(-length // chunk_length)
  fill = n_chunks * chunk_length - length
  n_groups = -(-n_chunks // max(1, _GROUP_QUERIES // (batch * n_heads * chunk_length)))
  group = -(-n_chunks // n_groups)
  chunks = _Chunks(n_rounds, n_chunks, chunk_length, chunks_before, chunks_after, group, causal)
  # The padding of the last chunk sorts after everything else, and no query sees it.
  buckets_BxHxRxP = jnp.pad(buckets_BxHxRxT, ((0, 0), (0, 0), (0, 0), (0, fill)), constant_values=n_buckets)
  key_position_BxP = jnp.pad(key_position_BxT, ((0, 0), (0, fill)), constant_values=UNSEEN)
  keep_RxHxCxW = None
  if key is not None and rate > 0:
    window = (chunks_before + 1 + chunks_after) * chunk_length
    keep_RxHxCxW = jax.random.bernoulli(key, 1 - rate, (n_rounds, n_heads, chunk_length, window)) / (1 - rate)
  segment_BxP = None if segment_BxT is None else jnp.pad(segment_BxT, ((0, 0), (0, fill)))
  inputs = _Inputs(sort_by_bucket(buckets_BxHxRxP, n_buckets + 1), key_position_BxP, segment_BxP, keep_RxHxCxW)
  q_BxHxPxK, v_BxHxPxK = (jnp.pad(x, ((0, 0), (0, 0), (0, fill), (0, 0))) for x in (q_BxHxTxK, v_BxHxTxK))
  return _attend(chunks, q_BxHxPxK, v_BxHxPxK, inputs)[:, :, :length]


def lsh_attention(
  q_BxHxTxK: jax.Array,
  v_BxHxTxK: jax.Array,
  buckets_BxHxRxT: jax.Array,
  real_BxT: jax.Array | None = None,
  segment_BxT: jax.Array | None = None,
  *,
  n_buckets: int,
  **sizes,
) -> jax.Array:
  """Returns LSH attention. Padding sorts after all buckets, and no position sees it.

  (In the authors' code, padding at positions 0 and 1 is visible.)

  Args:
    q_BxHxTxK, v_BxHxTxK: queries, which are also the keys, and values.
    buckets_BxHxRxT: buckets from `hash_queries`, of any integer type.
    real_BxT: False at padding; None if there is no padding.
    segment_BxT: segments of packed rows; else None.
    n_buckets: product of the hash's factors.
    **sizes: the other arguments of `attend_in_buckets`.

  Returns:
    BxHxTxK.
  """
  buckets_BxHxRxT = buckets_BxHxRxT.astype(jnp.int32)
  key_position_BxT = jnp.broadcast_to(
    jnp.arange(q_BxHxTxK.shape[2], dtype=jnp.int32), (q_BxHxTxK.shape[0], q_BxHxTxK.shape[2])
  )
  if real_BxT is not None:
    buckets_BxHxRxT = jnp.where(real_BxT[:, None, None], buckets_BxHxRxT, n_buckets)
    key_position_BxT = jnp.where(real_BxT, key_position_BxT, UNSEEN)
  return attend_in_buckets(
    q_BxHxTxK, v_BxHxTxK, buckets_BxHxRxT, key_position_BxT, segment_BxT, n_buckets=n_buckets + 1, **sizes
  )
