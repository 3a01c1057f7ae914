"""The reference's Terraformer in our terms: its config, and its weights or gradients by the path of our parameters."""

from collections.abc import Mapping

import numpy as np
from flax import nnx

from terraformer.config import (
  BlockConfig,
  DenseProjectionConfig,
  FixedBasePositionsConfig,
  SparseFFConfig,
  SparseOutputConfig,
  SparseProjectionConfig,
  SRUConfig,
  TablePositionsConfig,
  TerraformerConfig,
)
from terraformer.models.parameters import flatten, merge_module, split_module, unflatten

BASES = (11, 13, 14, 15)

# Parts of our paths and what they are there, replaced in this order.
_NAMES = (
  ('encoder.blocks.attentions.0.', 'encoder/block{layer}/attn/'),
  ('decoder.blocks.attentions.', 'decoder/block{layer}/attn'),
  ('encoder.blocks.', 'encoder/block{layer}/'),
  ('decoder.blocks.', 'decoder/block{layer}/'),
  ('attentions.', 'attn'),
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
  ('.kernel_CxExVxW', '_kernel'),
  ('.bias_W', '_bias'),
  ('gating_SxD', 'gating'),
  ('projection_DxW', 'projection'),
  ('projection_WxD', 'projection'),
  ('embedding.table_VxD', 'embedding'),
  ('encoder_positions.', 'encoder_pos.'),
  ('decoder_positions.', 'decoder_pos.'),
  ('table_PxD', 'table'),
  ('start_D', 'start_vec'),
  ('scale_D', 'scale'),
  ('bias_D', 'bias'),
  ('bias_F', 'bias'),
  ('bias_SxW', 'bias'),
  ('kernel_DxF', 'kernel'),
  ('.', '/'),
)
_OUTSIDE = {'norm': 'final_ln', 'output': 'loss', 'merge': 'encoder.final_dense', 'merge_norm': 'encoder.final_ln'}


def config(r: Mapping[str, np.ndarray], **sparse_ff) -> TerraformerConfig:
  """What a file of the reference is: its sizes, and which mechanisms, as its weights tell.

  Dense projections in the encoder, sparse ones in the decoder; sparse feed-forward blocks, an SRU, no dropout.
  """
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

  by_digits = 'w/encoder_pos/start_vec' in r
  convolution_CxExVxW = r['w/decoder/block0/attn0/q_kernel']
  lengths = int(r['cfg_Le']), int(r['cfg_Ld'])
  return TerraformerConfig(
    vocab_size=int(r['cfg_vocab']),
    max_length=max(lengths) if by_digits else r['w/encoder_pos/table'].shape[0],
    positions=_digits(r) if by_digits else TablePositionsConfig(),
    n_encoder_layers=int(r['cfg_enc']),
    n_decoder_layers=int(r['cfg_dec']),
    n_decoder_attentions=2 if 'w/decoder/block0/attn1/gating' in r else 1,
    encoder=block(DenseProjectionConfig(bias='w/encoder/block0/attn/q/bias' in r)),
    decoder=block(SparseProjectionConfig(int(r['cfg_sp']), *convolution_CxExVxW.shape[:2])),
    output=SparseOutputConfig(int(r['cfg_loss'])),
    merge_encoder='w/encoder/final_dense/kernel' in r,
  )


def _digits(r: Mapping[str, np.ndarray]) -> FixedBasePositionsConfig:
  n_bases = next(n for n in range(len(BASES) + 1) if f'w/encoder_pos/base{n}_digit0' not in r)
  n_digits = next(n for n in range(100) if f'w/encoder_pos/base0_digit{n}' not in r)
  return FixedBasePositionsConfig(BASES[:n_bases], n_digits)


def _name(path: str) -> str:
  head, _, tail = path.partition('.')
  path = f'{_OUTSIDE[head]}.{tail}' if head in _OUTSIDE else path.replace('.norm.', '.ln.').replace('.output.', '.o.')
  for ours, theirs in _NAMES:
    path = path.replace(ours, theirs)
  return path


def _in_our_layout(path: str, array: np.ndarray) -> np.ndarray:
  if path.endswith('w1_MxNxD'):
    return array.transpose(1, 2, 0)
  if path.endswith('w2_MxNxD'):
    return array.transpose(1, 0, 2)
  if path.endswith('projection_WxD'):
    return array.T
  return array


def _read(r: Mapping[str, np.ndarray], kind: str, path: str, layer: int, size: int) -> np.ndarray:
  """The reference's array for one of our parameters."""
  name = f'{kind}/{_name(path).format(layer=layer)}'
  if path.endswith('weights_NxIxW'):
    where = name.rsplit('/', 1)[0]
    n_bases = next(n for n in range(len(BASES) + 1) if f'{where}/base{n}_digit0' not in r)
    n_digits = next(n for n in range(100) if f'{where}/base0_digit{n}' not in r)
    return np.stack([r[f'{where}/base{n}_digit{i}'] for n in range(n_bases) for i in range(n_digits)])
  head_major = name.replace('/kernel', '')
  head_major = f'{head_major[:-1]}w_{head_major[-1]}'
  if name not in r and head_major in r:  # HxDxK, and HxKxD for the output
    array = r[head_major]
    return array.reshape(-1, array.shape[-1]) if name.endswith('o/kernel') else array.swapaxes(0, 1).reshape(size, -1)
  return _in_our_layout(path, r[name])


def in_our_terms(r: Mapping[str, np.ndarray], kind: str, model: nnx.Module) -> nnx.Module:
  """`model` (or shapes of it) with the arrays of the reference, weights (`kind` 'w') or gradients ('grad')."""
  structure, params = split_module(model)

  def find(path, leaf):
    if '{layer}' not in _name(path):
      return _read(r, kind, path, 0, leaf.shape[0]).reshape(leaf.shape)
    layers = [_read(r, kind, path, layer, leaf.shape[1]) for layer in range(leaf.shape[0])]
    return np.stack(layers).reshape(leaf.shape)

  return merge_module(structure, unflatten({path: find(path, leaf) for path, leaf in flatten(params).items()}))
