"""The reference's Terraformer in our terms: its config, and its weights or gradients by the path of our parameters."""

import numpy as np
from flax import nnx

from terraformer.config import (
  BlockConfig,
  DenseProjectionConfig,
  SparseFFConfig,
  SparseOutputConfig,
  SparseProjectionConfig,
  SRUConfig,
  TerraformerConfig,
)
from terraformer.models.parameters import flatten, merge, split, unflatten

# Parts of our paths and what they are there, replaced in this order.
_NAMES = (
  ('encoder.blocks.attentions.0.', 'encoder/block{layer}/attn/'),
  ('decoder.blocks.attentions.', 'decoder/block{layer}/attn'),
  ('encoder.blocks.', 'encoder/block{layer}/'),
  ('decoder.blocks.', 'decoder/block{layer}/'),
  ('feed_forward.recurrence.sru.gates', 'ff/sru_branch/sru'),
  ('feed_forward.recurrence.contract', 'ff/sru_branch/dense_in'),
  ('feed_forward.recurrence.expand', 'ff/sru_branch/dense_out'),
  ('feed_forward.recurrence.', 'ff/sru_branch/'),
  ('feed_forward.feed_forward', 'ff/sparse_ff'),
  ('feed_forward.', 'ff/'),
  ('controller_DxR', 'm1'),
  ('controller_RxMxN', 'm2'),
  ('controller_bias_MxN', 'mb'),
  ('sparse_ff.bias_D', 'sparse_ff.b2'),
  ('w1_MxNxD', 'w1'),
  ('w2_MxNxD', 'w2'),
  ('attention.projection.shared.bias_SxW', 'mult_bias'),
  ('attention.projection.shared.', ''),
  ('attention.projection.', ''),
  ('query', 'q'),
  ('key', 'k'),
  ('value', 'v'),
  ('.kernel_CxExWxW', '_kernel'),
  ('.bias_W', '_bias'),
  ('gating_SxD', 'gating'),
  ('projection_DxW', 'projection'),
  ('embedding.table_VxD', 'embedding'),
  ('encoder_positions.table_PxD', 'encoder_pos/table'),
  ('decoder_positions.table_PxD', 'decoder_pos/table'),
  ('scale_D', 'scale'),
  ('bias_D', 'bias'),
  ('bias_F', 'bias'),
  ('bias_SxW', 'bias'),
  ('kernel_DxF', 'kernel'),
  ('.', '/'),
)


def config(r: dict[str, np.ndarray], **sparse_ff) -> TerraformerConfig:
  """Dense projections in the encoder, sparse ones in the decoder; sparse feed-forward blocks, an SRU, no dropout."""
  feed_forward = SparseFFConfig(
    d_ff=int(r['cfg_d_ff']),
    block_size=int(r['cfg_ff']),
    rank=r['w/encoder/block0/ff/sparse_ff/m1'].shape[1],
    **sparse_ff,
  )

  def block(projection):
    return BlockConfig(
      d_model=int(r['cfg_d_model']),
      n_heads=int(r['cfg_n_heads']),
      projection=projection,
      feed_forward=feed_forward,
      recurrence=SRUConfig(int(r['cfg_sru'])),
      dropout=0.0,
    )

  return TerraformerConfig(
    vocab_size=int(r['cfg_vocab']),
    max_length=r['w/encoder_pos/table'].shape[0],
    n_encoder_layers=int(r['cfg_enc']),
    n_decoder_layers=int(r['cfg_dec']),
    encoder=block(DenseProjectionConfig()),
    decoder=block(SparseProjectionConfig(int(r['cfg_sp']), 3, 3)),
    output=SparseOutputConfig(int(r['cfg_loss'])),
  )


def _name(path: str) -> str:
  head, _, tail = path.partition('.')
  outside = {'norm': 'final_ln', 'output': 'loss'}
  path = f'{outside[head]}.{tail}' if head in outside else path.replace('.norm.', '.ln.').replace('.output.', '.o.')
  for ours, theirs in _NAMES:
    path = path.replace(ours, theirs)
  return path


def _in_our_layout(path: str, array: np.ndarray) -> np.ndarray:
  if path.endswith('w1_MxNxD'):
    return array.transpose(1, 2, 0)
  if path.endswith('w2_MxNxD'):
    return array.transpose(1, 0, 2)
  return array


def in_our_terms(r: dict[str, np.ndarray], kind: str, model: nnx.Module) -> nnx.Module:
  """`model` (or shapes of it) with the arrays of the reference, weights (`kind` 'w') or gradients ('grad')."""
  structure, params = split(model)

  def find(path, leaf):
    name = f'{kind}/{_name(path)}'
    if '{layer}' not in name:
      return _in_our_layout(path, r[name]).reshape(leaf.shape)
    layers = [_in_our_layout(path, r[name.format(layer=layer)]) for layer in range(leaf.shape[0])]
    return np.stack(layers).reshape(leaf.shape)

  return merge(structure, unflatten({path: find(path, leaf) for path, leaf in flatten(params).items()}))
