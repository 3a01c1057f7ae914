"""Attention with every projection, beside the reference."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import BlockConfig, DenseProjectionConfig, ModularProjectionConfig, SparseProjectionConfig
from terraformer.layers.attention import Attention
from terraformer.layers.dense import Dense
from terraformer.ops.attention import dot_product_attention
from terraformer.ops.shared_qk import shared_qk_attention
from tests.reference.cases_feed_forward import assign_multiplicative_modular
from tests.reference.vectors import Vectors, assign, assign_multiplicative, assign_sparse_projection
from tests.weights import build, nothing_filled


def steps(layer: Attention, x_BxTxD) -> jax.Array:
  """`layer` token by token."""
  cache, filled, stepped = layer.init_cache(*x_BxTxD.shape[:2]), nothing_filled(len(x_BxTxD)), []
  step = jax.jit(lambda x_BxD, cache, filled: layer.step(x_BxD, cache, filled))
  for x_BxD in x_BxTxD.swapaxes(0, 1):
    y_BxD, cache = step(x_BxD, cache, filled)
    filled = filled.advanced()
    stepped.append(y_BxD)
  return jnp.stack(stepped, 1)


def _sparse_config(r: Vectors, module_kernel: int) -> SparseProjectionConfig:
  return SparseProjectionConfig(int(r['sparsity']), int(r['length_kernel_size']), module_kernel)


def _attention(r: Vectors, projection, causal: bool = True) -> Attention:
  config = BlockConfig(d_model=r['x'].shape[-1], n_heads=int(r['n_heads']), projection=projection)
  return build(lambda key: Attention(config, causal, key=key))


def mult_conv_attention(r: Vectors) -> None:
  """The sparse projections and causal attention: every stage, steps and gradients."""
  layer = _attention(r, _sparse_config(r, r['w_q_kernel'].shape[1]))
  assign_sparse_projection(layer.projection, r)
  x_BxTxD = r['x']
  batch, time, d_model = x_BxTxD.shape
  r.compare('stage_mult', layer.projection.shared(x_BxTxD))
  q, k, v = layer.projection(x_BxTxD)
  r.compare_all({'q': q, 'k': k, 'v': v}, 'stage_')
  heads_BxTxHxK = dot_product_attention(q, k.swapaxes(1, 2), v.swapaxes(1, 2), np.tri(time, dtype=bool)[None])
  r.compare('stage_attention_heads', heads_BxTxHxK.swapaxes(1, 2).reshape(r['stage_attention_heads'].shape))

  def loss(layer, x):
    y, _ = layer(x)
    return (y * r['cotangent']).sum(), y

  (d_layer, d_x), y = jax.grad(loss, argnums=(0, 1), has_aux=True)(layer, x_BxTxD)
  r.compare('y', y)
  r.compare('y_predict_stepwise', steps(layer, x_BxTxD))
  shared = d_layer.projection.shared
  gradients = {
    'x': d_x,
    'gating': shared.gating_SxD[...],
    'projection': shared.projection_DxW[...],
    'mult_bias': shared.bias_SxW[...],
  }
  for name in ('query', 'key', 'value'):
    convolution = getattr(d_layer.projection, name)
    gradients |= {f'{name[0]}_kernel': convolution.kernel_CxExVxW[...], f'{name[0]}_bias': convolution.bias_W[...]}
  r.compare_all(gradients, 'grad_')


# What the tags of the variants mean, in our options.
_VARIANTS = {
  'shareqk': {'share_qk': True},
  'vfixed': {'value_reads_input': True},
  'voriginal': {'value_reads_input': True, 'value_by_module': False},
  'outmult': {'output_multiplicative': True},
  'outconv': {'output_convolution': True},
  'outmultconv': {'output_multiplicative': True, 'output_convolution': True},
}


def mult_conv_attention_variants(r: Vectors) -> None:
  """The options of the sparse projections, at once and token by token."""
  for tag in r.tags('_y'):
    weights = [r[name] for name in sorted(r.names(f'{tag}_w'))]
    config = dataclasses.replace(_sparse_config(r, weights[3].shape[1]), **_VARIANTS[tag])
    layer = _attention(r, config)
    projection = layer.projection
    rest = iter(weights)
    assign_multiplicative(projection.shared, next(rest), next(rest), next(rest))
    for convolution in (projection.query, projection.key, projection.value):
      if convolution is not None:
        assign(convolution, kernel_CxExVxW=next(rest), bias_W=next(rest))
    if projection.output is not None:
      assign_multiplicative(projection.output, next(rest), next(rest), next(rest))
    if projection.output_convolution is not None:
      assign(projection.output_convolution, kernel_CxExVxW=next(rest), bias_W=next(rest))
    assert next(rest, None) is None, f'{tag}: more weights in the reference than here'
    r.compare(f'{tag}_y', layer(r['x'])[0])
    r.compare(f'{tag}_y', steps(layer, r['x']), label=f'{tag}_y, step by step')


def mult_modular_attention(r: Vectors) -> None:
  """Queries, keys, values and output by multiplicative modular layers."""
  layer = _attention(r, ModularProjectionConfig(int(r['sparsity'])))
  projection = layer.projection
  for name, one in {
    'q': projection.query,
    'k': projection.key,
    'v': projection.value,
    'out': projection.output,
  }.items():
    assign_multiplicative_modular(one, r.part(f'w_{name}_'))
  r.compare('y', layer(r['x'])[0])
  r.compare('y', steps(layer, r['x']), label='y, step by step')


def _dense_heads(r: Vectors, projection: DenseProjectionConfig, causal: bool) -> Attention:
  """`tl.SelfAttention`, whose weights lie head by head."""
  layer = _attention(r, projection, causal)
  assign_heads(layer.projection, r)
  return layer


def assign_heads(projection, weights) -> None:
  """Loads weights w_q, w_k, w_v HxDxK and w_o HxKxD into dense projections without biases; H K need not be D."""

  def dense(kernel_DxF):
    layer = build(lambda key: Dense(*kernel_DxF.shape, key=key, bias=False))
    assign(layer, kernel_DxF=kernel_DxF)
    return layer

  for name in ('query', 'key', 'value'):
    if getattr(projection, name) is not None:
      w_HxDxK = weights[f'w_{name[0]}']
      setattr(projection, name, dense(w_HxDxK.swapaxes(0, 1).reshape(w_HxDxK.shape[1], -1)))
  w_HxKxD = weights['w_o']
  projection.output = dense(w_HxKxD.reshape(-1, w_HxKxD.shape[-1]))


def assign_dense_qkv(projection, weights, separator: str = '_') -> None:
  """Loads kernels and biases q, k, v, o into dense projections."""
  parts = (projection.query, projection.key, projection.value, projection.output)
  for name, dense in zip('qkvo', parts, strict=True):
    kernel, bias = weights[f'{name}{separator}kernel'], weights[f'{name}{separator}bias']
    assign(dense, kernel_DxF=kernel, bias_F=bias)


def self_attention(r: Vectors) -> None:
  """Dense attention of both kinds: padded, causal, and causal with shared queries and keys."""
  x_BxTxD, mask_BxT = r['x'], r['mask'].astype(bool)
  no_bias = DenseProjectionConfig(bias=False)
  padded = _dense_heads(r, no_bias, causal=False)
  # The reference does not mask padding at positions 0 and 1; ours does.
  quirk_B = (~mask_BxT[:, :2]).any(1)
  note = f'{quirk_B.sum()} of {len(quirk_B)} examples left out: the reference sees padding at positions 0 and 1'
  y_BxTxD, _ = padded(x_BxTxD, real_BxT=mask_BxT)
  r.compare('y_masked', y_BxTxD, where=~quirk_B, note=note if quirk_B.any() else '')
  seen_BxT = mask_BxT | (np.arange(mask_BxT.shape[1]) < 2)
  r.compare('y_masked', padded(x_BxTxD, real_BxT=seen_BxT)[0], label='y_masked, padding at 0 and 1 seen')
  causal = _dense_heads(r, no_bias, causal=True)
  r.compare('y_causal', causal(x_BxTxD)[0])
  r.compare('y_causal', steps(causal, x_BxTxD), label='y_causal, step by step')
  q_BxTxHxK, _, v_BxTxHxK = causal.projection(x_BxTxD)
  shared_BxTxHxK = shared_qk_attention(q_BxTxHxK, v_BxTxHxK, None, causal=True)
  r.compare('y_causal_shareqk', causal.projection.project_output(shared_BxTxHxK))
  for tag, is_causal in (('std', False), ('stdcausal', True)):
    layer = _attention(r, DenseProjectionConfig(), is_causal)
    assign_dense_qkv(layer.projection, r.part(f'{tag}_w_'))
    if is_causal:
      r.compare('stdcausal_y', layer(x_BxTxD)[0])
      r.compare('stdcausal_y', steps(layer, x_BxTxD), label='stdcausal_y, step by step')
    else:
      r.compare('std_y_masked', layer(x_BxTxD, real_BxT=mask_BxT)[0])
