"""LSH attention beside the reference, with its rotations and buckets.

The reference masks padding, but not at positions 0 and 1; ours masks it there as well. So the masked files are compared
twice: with what the reference sees, at all queries but such padding itself, and with our mask, at the queries that have
no such padding in any of their windows.
"""

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import DenseProjectionConfig
from terraformer.layers.separate_qkv import DenseProjection
from terraformer.ops.lsh import UNSEEN, attend_in_buckets, lsh_attention
from terraformer.ops.lsh_hash import hash_queries
from tests.reference.cases_attention import assign_heads
from tests.reference.vectors import TOLERANCE, Vectors
from tests.weights import build

# Rows of the causal two-round file that see nobody but themselves live at -1e5 there, where a float32 ulp is 0.008.
COARSE = {'causal_h2': 2e-2}


def lsh_hash(r: Vectors) -> None:
  """Buckets of several hashes, one of them factorised."""
  for tag in r.tags('_rotations'):
    factors = tuple(int(factor) for factor in r[f'{tag}_factors'])
    assert np.prod(factors) == r[f'{tag}_n_buckets']
    buckets_RxT = hash_queries(jnp.asarray(r['vecs']), jnp.asarray(r[f'{tag}_rotations']), factors)
    r.compare(f'{tag}_buckets', buckets_RxT, tolerance=0)


class _Setting:
  """What a tag says: sizes, buckets and masks."""

  def __init__(self, r: Vectors, tag: str, n_examples: int, n_heads: int):
    self.n_rounds, self.causal, self.masked = (
      int(r[f'{tag}_n_hashes']),
      bool(r[f'{tag}_causal']),
      bool(r[f'{tag}_masked']),
    )
    self.n_buckets, self.chunk_length = int(r[f'{tag}_n_buckets']), int(r[f'{tag}_chunk_len'])
    self.before, self.after = int(r[f'{tag}_n_chunks_before']), int(r[f'{tag}_n_chunks_after'])
    joint = r[f'{tag}_buckets'].reshape(n_examples, n_heads, self.n_rounds, -1)
    # There rounds are told apart by an offset; padding has a bucket of its own.
    offset = np.arange(self.n_rounds)[:, None] * (self.n_buckets + self.masked)
    self.buckets_BxHxRxT = jnp.asarray(joint - offset, jnp.int32)
    self.real_BxT = jnp.asarray(r[f'{tag}_mask'], bool) if self.masked else None

  def attend(self, q_BxHxTxK, v_BxHxTxK) -> jax.Array:
    """Our attention with the reference's buckets."""
    return lsh_attention(
      q_BxHxTxK, v_BxHxTxK, self.buckets_BxHxRxT, self.real_BxT, n_buckets=self.n_buckets, **self._sizes()
    )

  def attend_as_there(self, q_BxHxTxK, v_BxHxTxK) -> jax.Array:
    """The same, but that padding at positions 0 and 1 is seen."""
    position_T = np.arange(q_BxHxTxK.shape[2])
    key_position_BxT = jnp.where(self.real_BxT | (position_T < 2), position_T, UNSEEN).astype(jnp.int32)
    n_buckets = self.n_buckets + 1
    return attend_in_buckets(
      q_BxHxTxK, v_BxHxTxK, self.buckets_BxHxRxT, key_position_BxT, n_buckets=n_buckets, **self._sizes()
    )

  def _sizes(self) -> dict[str, int | bool]:
    return {
      'chunk_length': self.chunk_length,
      'chunks_before': self.before,
      'chunks_after': self.after,
      'causal': self.causal,
    }

  def unaffected(self) -> np.ndarray:
    """Queries none of whose windows, in any round, holds padding at position 0 or 1."""
    n_rounds, length = self.buckets_BxHxRxT.shape[2:]
    n_chunks = n_rounds * length // self.chunk_length
    clean = np.ones((*self.buckets_BxHxRxT.shape[:2], length), bool)
    for b, h in np.ndindex(*self.buckets_BxHxRxT.shape[:2]):
      order_RxT = np.argsort(np.asarray(self.buckets_BxHxRxT)[b, h], axis=-1, kind='stable')
      chunks = order_RxT.reshape(n_chunks, self.chunk_length)
      bad = ((chunks < 2) & ~np.asarray(self.real_BxT)[b][chunks]).any(1)
      for chunk in range(n_chunks):
        window = [(chunk + shift) % n_chunks for shift in range(-self.before, self.after + 1)]
        if bad[window].any():
          clean[b, h, chunks[chunk]] = False
    return clean

  def compare(self, r: Vectors, name: str, run, rows, tolerance: float) -> None:
    """Compares `run(attention)` with the array `name`; `rows` turns queries BxHxT into its rows."""
    if self.real_BxT is None:
      r.compare(name, run(self.attend), tolerance=tolerance)
      return
    real_BxT = np.asarray(self.real_BxT)
    # It takes positions 0 and 1 for one another where only one of them is padding.
    if (real_BxT[:, 0] == real_BxT[:, 1]).all():
      not_them_BxT = real_BxT | (np.arange(real_BxT.shape[1]) >= 2)
      kept = rows(np.broadcast_to(not_them_BxT[:, None], self.buckets_BxHxRxT[:, :, 0].shape))
      note = f'{(~kept).sum()} of {kept.size} rows left out: padding at positions 0 and 1'
      label = f'{name}, padding at 0 and 1 seen'
      r.compare(name, run(self.attend_as_there), tolerance=tolerance, where=kept, label=label, note=note)
    kept = rows(self.unaffected())
    note = f'{(~kept).sum()} of {kept.size} rows left out: the reference sees padding at positions 0 and 1'
    r.compare(name, run(self.attend), tolerance=tolerance, where=kept, note='' if kept.all() else note)


def pure_lsh_attention(r: Vectors) -> None:
  """Attention with given queries, values and buckets."""
  for tag in r.tags('_y'):
    q_NxTxK, v_NxTxK, mask = r[f'{tag}_qk'], r[f'{tag}_v'], f'{tag}_mask'
    n_examples = len(r[mask]) if mask in r else len(q_NxTxK)
    n_heads = len(q_NxTxK) // n_examples
    setting = _Setting(r, tag, n_examples, n_heads)
    _compare_hashes(r, tag, setting, q_NxTxK)
    q, v = (jnp.asarray(x.reshape(n_examples, n_heads, *x.shape[1:])) for x in (q_NxTxK, v_NxTxK))
    rows = lambda clean_BxHxT, q=q_NxTxK: clean_BxHxT.reshape(q.shape[:2])  # noqa: E731
    run = lambda attend, q=q, v=v: attend(q, v)  # noqa: E731
    setting.compare(r, f'{tag}_y', run, rows, COARSE.get(tag, TOLERANCE))


def _compare_hashes(r: Vectors, tag: str, setting: _Setting, q_NxTxK) -> None:
  """Our buckets of the reference's queries, with its rotations, which differ for each example and head."""
  n_examples, n_heads, n_rounds, length = setting.buckets_BxHxRxT.shape
  hash_all = jax.vmap(lambda q, rotations: hash_queries(q, rotations, (setting.n_buckets,)))
  buckets = hash_all(jnp.asarray(q_NxTxK), jnp.asarray(r[f'{tag}_rotations'])).reshape(
    n_examples, n_heads, n_rounds, length
  )
  if setting.real_BxT is not None:
    buckets = jnp.where(setting.real_BxT[:, None, None], buckets, setting.n_buckets)
  r.compare_with(f'{tag}_buckets', np.asarray(buckets), setting.buckets_BxHxRxT, tolerance=0)


def _projection(d_model: int, n_heads: int) -> DenseProjection:
  config = DenseProjectionConfig(bias=False, share_qk=True)
  return build(lambda key: DenseProjection(config, d_model, n_heads, key=key))


def lsh_attention_layer(r: Vectors) -> None:
  """Attention with its projections, and its gradients; the queries are hashed with the reference's rotations."""
  x_BxTxD = jnp.asarray(r['x'])
  n_examples = len(x_BxTxD)
  for tag in r.tags('_y'):
    w_HxDxK, tolerance = r[f'{tag}_w_qk'], COARSE.get(tag, TOLERANCE)
    n_heads, d_model, width = w_HxDxK.shape
    setting = _Setting(r, tag, n_examples, n_heads)
    projection = _projection(d_model, n_heads)
    weights = {'w_q': w_HxDxK, 'w_v': r[f'{tag}_w_v'], 'w_o': r[f'{tag}_w_o']}
    assign_heads(projection, weights)
    q_BxTxHxK, _, _ = projection(x_BxTxD)
    _compare_hashes(r, tag, setting, q_BxTxHxK.swapaxes(1, 2).reshape(n_examples * n_heads, -1, width))

    def run(attend, projection=projection, x_BxTxD=x_BxTxD):
      q_BxTxHxK, _, v_BxTxHxK = projection(x_BxTxD)
      y_BxHxTxK = attend(q_BxTxHxK.swapaxes(1, 2), v_BxTxHxK.swapaxes(1, 2))
      return projection.project_output(y_BxHxTxK.swapaxes(1, 2))

    setting.compare(r, f'{tag}_y', run, lambda clean_BxHxT: clean_BxHxT.all(1), tolerance)
    if f'{tag}_cotangent' not in r:
      continue
    cotangent = r[f'{tag}_cotangent']

    def loss(projection, x_BxTxD, run=run, attend=setting.attend, cotangent=cotangent):
      return (run(attend, projection, x_BxTxD) * cotangent).sum()

    d_projection, d_x = jax.grad(loss, argnums=(0, 1))(projection, x_BxTxD)
    r.compare(f'{tag}_grad_x', d_x, tolerance=tolerance)
    for name, dense in {'qk': d_projection.query, 'v': d_projection.value}.items():
      by_head = dense.kernel_DxF[...].reshape(d_model, n_heads, width).swapaxes(0, 1)
      r.compare(f'{tag}_grad_w_{name}', by_head, tolerance=tolerance)
    r.compare(f'{tag}_grad_w_o', d_projection.output.kernel_DxF[...], tolerance=tolerance)
