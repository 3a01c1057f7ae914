"""The sparse feed-forward block and the factored dense layers, beside the reference."""

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import SparseFFConfig, SRUConfig
from terraformer.layers.modular_convolution import ModularConvolution
from terraformer.layers.multiplicative import MultiplicativeDense
from terraformer.layers.multiplicative_modular import MultiplicativeModularDense
from terraformer.layers.sparse_ff import SparseFF
from terraformer.layers.sru import SRU
from terraformer.ops.routing import select_units, straight_through
from tests.reference.vectors import Vectors, assign, assign_multiplicative
from tests.weights import build


def _sparse_ff(r: Vectors, **options) -> SparseFF:
  d_model, n_blocks, block_size = r['w_w1'].shape
  assert block_size == r['n_elements_in_block']
  config = SparseFFConfig(n_blocks * block_size, block_size, r['w_m1'].shape[1], **options)
  layer = build(lambda key: SparseFF(config, d_model, 0.0, key=key))
  assign(
    layer,
    controller_DxR=r['w_m1'],
    controller_RxMxN=r['w_m2'],
    controller_bias_MxN=r['w_mb'],
    w1_MxNxD=r['w_w1'].transpose(1, 2, 0),
    w2_MxNxD=r['w_w2'].transpose(1, 0, 2),
    bias_D=r['w_b2'],
  )
  return layer


def sparse_ff_eval(r: Vectors) -> None:
  """Evaluation: the controller's logits, the chosen units, the output at once and token by token."""
  layer, x_BxTxD = _sparse_ff(r), r['x']
  y_BxTxD, units_BxTxM = layer(x_BxTxD)
  r.compare('mask_logits', layer.logits(x_BxTxD))
  r.compare('quant_mask', units_BxTxM, tolerance=0)
  r.compare('y', y_BxTxD)
  r.compare('y_predict', layer.step(x_BxTxD.reshape(-1, x_BxTxD.shape[-1])))
  scaled = _sparse_ff(r, multiply_by_controller_output=True)
  r.compare('y_multiply_by_controller_output', scaled(x_BxTxD)[0])
  step_y = scaled.step(x_BxTxD.reshape(-1, x_BxTxD.shape[-1]))
  r.compare('y_multiply_by_controller_output', step_y, label='y_multiply_by_controller_output, step by step')


def sparse_ff_train(r: Vectors) -> None:
  """Training: the reference's own uniform numbers make the choice, the layer repeats it; output and gradients."""
  options = {'temperature': float(r['temperature']), 'hard_probability': float(r['quant_prob'])}
  # The file does not say whether it has the option; of the four it is the one whose own name does.
  scaled = (
    bool(r['multiply_by_controller_output']) if 'multiply_by_controller_output' in r else r.name.endswith('mulctrl')
  )
  layer = _sparse_ff(r, multiply_by_controller_output=scaled, **options)
  x_BxTxD = r['x']
  logits = layer.logits(x_BxTxD)
  logits_xMxN = logits.reshape(r['mask_logits'].shape)
  r.compare('mask_logits', logits_xMxN)
  log_mask_xMxN = jax.nn.log_softmax(logits_xMxN)
  r.compare('log_mask', log_mask_xMxN)
  r.compare('soft_mask', jax.nn.softmax(logits_xMxN))
  noisy_xMxN = logits_xMxN
  if 'u' in r:
    gumbel_xMxN = -jnp.log(-jnp.log(r['u']))
    r.compare('gumbel', gumbel_xMxN)
    noisy_xMxN = log_mask_xMxN + gumbel_xMxN * options['temperature']
  units_xM = select_units(noisy_xMxN)
  r.compare('quant_mask', units_xM, tolerance=0)
  choices_BxTxM = units_xM.reshape(*x_BxTxD.shape[:2], -1)

  def loss(layer, x_BxTxD):
    y_BxTxD, _ = layer(x_BxTxD, key=jax.random.key(0), routing=choices_BxTxM)
    return (y_BxTxD * r['cotangent']).sum(), y_BxTxD

  (d_layer, d_x), y_BxTxD = jax.grad(loss, argnums=(0, 1), has_aux=True)(layer, x_BxTxD)
  r.compare('y', y_BxTxD)
  r.compare('grad_x', d_x)
  r.compare('grad_m1', d_layer.controller_DxR[...])
  r.compare('grad_m2', d_layer.controller_RxMxN[...])
  r.compare('grad_mb', d_layer.controller_bias_MxN[...])
  r.compare('grad_w1', d_layer.w1_MxNxD[...].transpose(2, 0, 1))
  r.compare('grad_w2', d_layer.w2_MxNxD[...].transpose(1, 0, 2))
  r.compare('grad_b2', d_layer.bias_D[...])
  # The value of the straight-through mask is that of the one-hot.
  mask_xMxN = straight_through(units_xM, jax.nn.softmax(logits_xMxN))
  np.testing.assert_allclose(mask_xMxN, jax.nn.one_hot(units_xM, logits_xMxN.shape[-1]), atol=1e-6)


def factored_dense(r: Vectors) -> None:
  """The multiplicative dense layer and its gradients."""
  n_modules, d_in = r['w_gating'].shape
  assert n_modules == r['n_modules']
  layer = build(lambda key: MultiplicativeDense(n_modules, d_in, r['w_bias'].size, key=key))
  assign_multiplicative(layer, r['w_gating'], r['w_projection'], r['w_bias'])

  def loss(layer, x):
    y = layer(x)
    return (y * r['cotangent']).sum(), y

  (d_layer, d_x), y = jax.grad(loss, argnums=(0, 1), has_aux=True)(layer, r['x'])
  r.compare('y', y)
  step = jnp.stack([layer(x_BxD) for x_BxD in r['x'].swapaxes(0, 1)], 1)
  r.compare('y', step, label='y, step by step')
  gradients = {
    'x': d_x,
    'gating': d_layer.gating_SxD[...],
    'projection': d_layer.projection_DxW[...],
    'bias': d_layer.bias_SxW[...],
  }
  r.compare_all(gradients, 'grad_')


def assign_multiplicative_modular(layer: MultiplicativeModularDense, weights: dict[str, np.ndarray]) -> None:
  """Loads a multiplicative and modular layer."""
  assign(
    layer,
    gating_SxD=weights['multiplier'],
    projection_DxW=weights['kernel_mult'],
    modular_SxWxV=weights['kernel_modular'],
    bias_SxV=weights['bias'].reshape(layer.bias_SxV.get_value().shape),
  )


def mult_modular_sparse_dense(r: Vectors) -> None:
  """A multiplicative dense layer with a dense layer a module behind it."""
  d_model = r['x'].shape[-1]
  layer = build(lambda key: MultiplicativeModularDense(int(r['sparsity']), d_model, key=key))
  assign_multiplicative_modular(layer, r.part('w_'))
  r.compare('y', layer(r['x']))
  step = jnp.stack([layer(x_BxD) for x_BxD in r['x'].swapaxes(0, 1)], 1)
  r.compare('y', step, label='y, step by step')


def locally_conv_dense(r: Vectors) -> None:
  """The convolution over time and modules, at several kernel sizes."""
  n_modules, (batch, time, _) = int(r['n_modules']), r['x'].shape
  x_BxTxSxW = r['x'].reshape(batch, time, n_modules, -1)
  for tag in r.tags('_y'):
    length_kernel, module_kernel, _, width = r[f'{tag}_w_kernel'].shape
    assert (module_kernel, length_kernel) == (r[f'{tag}_kernel_size'], r[f'{tag}_length_kernel_size'])
    make = lambda key, sizes=(width, length_kernel, module_kernel): ModularConvolution(*sizes, key=key)  # noqa: E731
    layer = build(make)
    assign(layer, kernel_CxExVxW=r[f'{tag}_w_kernel'], bias_W=r[f'{tag}_w_bias'])
    r.compare(f'{tag}_y', layer(x_BxTxSxW))


def sru(r: Vectors) -> None:
  """The recurrence at once and token by token, with and without tanh, and its gradients."""
  width = r['w_kernel'].shape[0]
  layer, with_tanh = (build(lambda key, tanh=tanh: SRU(SRUConfig(width, tanh), key=key)) for tanh in (False, True))
  for one in (layer, with_tanh):
    assign(one.gates, kernel_DxF=r['w_kernel'], bias_F=r['w_bias'])

  def loss(layer, x):
    y = layer(x)
    return (y * r['cotangent']).sum(), y

  (d_layer, d_x), y = jax.grad(loss, argnums=(0, 1), has_aux=True)(layer, r['x'])
  r.compare('y', y)
  r.compare('y_tanh', with_tanh(r['x']))
  state, stepped = layer.init_cache(r['x'].shape[0]), []
  for x_BxW in r['x'].swapaxes(0, 1):
    y_BxW, state = layer.step(x_BxW, state)
    stepped.append(y_BxW)
  r.compare('y_predict_stepwise', jnp.stack(stepped, 1))
  r.compare_all({'x': d_x, 'kernel': d_layer.gates.kernel_DxF[...], 'bias': d_layer.gates.bias_F[...]}, 'grad_')
