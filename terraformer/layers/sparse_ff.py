"""The sparse feed-forward block (section 3.1): a controller selects the one unit per block that decoding reads.

B batch, T time, D d_model, M blocks, N units per block, F = M N, R controller rank.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import SparseFFConfig
from terraformer.layers.parameter import glorot_uniform, parameter, small_normal
from terraformer.ops.dropout import dropout
from terraformer.ops.keys import split_key
from terraformer.ops.products import has_many_vectors, times_rows
from terraformer.ops.routing import select_units, straight_through


class SparseFF(nnx.Module):
  """Computes y = relu((x w1) mask) w2 + b2, where the mask selects one unit per block.

  In training, each call samples whether its mask is the straight-through one-hot of a noisy choice or the controller's
  softmax. The mask is applied before the ReLU, whose gradient at 0 is 0, so units that were not selected learn nothing.
  """

  def __init__(self, config: SparseFFConfig, d_model: int, rate: float, *, key: jax.Array):
    """`rate` is the dropout rate of the output; all tokens of a call share one mask, as in the authors' code."""
    self.config = config
    self.rate = rate
    m, n, r, d = config.n_blocks, config.block_size, config.rank, d_model
    keys = jax.random.split(key, 6)
    self.controller_DxR = parameter(glorot_uniform(keys[0], (d, r), d, r), ('embed', None), group='controller')
    self.controller_RxMxN = parameter(
      glorot_uniform(keys[1], (r, m, n), r, config.d_ff), ('rank', 'ff_block', 'ff_unit'), group='controller'
    )
    self.controller_bias_MxN = parameter(
      small_normal(keys[2], (m, n)), ('ff_block', 'ff_unit'), decays=False, group='controller'
    )
    axes = ('ff_block', 'ff_unit', 'embed')
    self.w1_MxNxD = parameter(glorot_uniform(keys[3], (m, n, d), d, config.d_ff), axes, row_axis=-2)
    self.w2_MxNxD = parameter(glorot_uniform(keys[4], (m, n, d), config.d_ff, d), axes, row_axis=-2)
    self.bias_D = parameter(small_normal(keys[5], (d,)), ('embed',), decays=False)

  def logits(self, x_xD: jax.Array) -> jax.Array:
    """Returns the controller's output, float32 ...xMxN; the controller is linear."""
    x_xR = jnp.einsum('...D,DR->...R', x_xD, self.controller_DxR[...])
    if has_many_vectors(x_xD):
      w_FxR = self.controller_RxMxN[...].reshape(self.config.rank, -1).T
      logits_xMxN = self._by_block(times_rows(x_xR, w_FxR))
    else:
      logits_xMxN = jnp.einsum('...R,RMN->...MN', x_xR, self.controller_RxMxN[...])
    return (logits_xMxN + self.controller_bias_MxN[...]).astype(jnp.float32)

  def _by_block(self, x_xF: jax.Array) -> jax.Array:
    """Reshapes all units ...xF to ...xMxN."""
    return x_xF.reshape(*x_xF.shape[:-1], self.config.n_blocks, self.config.block_size)

  def _mask(self, logits_xMxN: jax.Array, units_xM: jax.Array, hard_key) -> tuple[jax.Array, jax.Array]:
    """Returns the mask before the ReLU and the controller's gain after it; for evaluation if the key is None."""
    soft_xMxN = jax.nn.softmax(logits_xMxN)
    if hard_key is None:
      return jax.nn.one_hot(units_xM, self.config.block_size, dtype=soft_xMxN.dtype), soft_xMxN
    hard = jax.random.bernoulli(hard_key, self.config.hard_probability)
    return straight_through(units_xM, soft_xMxN, hard), jnp.where(hard, jax.lax.stop_gradient(soft_xMxN), 1)

  def __call__(
    self, x_BxTxD: jax.Array, *, key: jax.Array | None = None, routing: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """Computes all positions.

    Args:
      x_BxTxD: input.
      key: random key for noise, the choice of the mask, and dropout; None for evaluation, which takes the argmax.
      routing: units_BxTxM of an earlier call to repeat; None to select units.

    Returns:
      y_BxTxD, and the selected units_BxTxM as routing.
    """
    noise_key, hard_key, dropout_key = split_key(key, 3)
    logits_BxTxMxN = self.logits(x_BxTxD)
    units_BxTxM = routing
    if units_BxTxM is None:
      units_BxTxM = select_units(logits_BxTxMxN, temperature=self.config.temperature, key=noise_key)
    mask_BxTxMxN, gain_BxTxMxN = self._mask(logits_BxTxMxN, units_BxTxM, hard_key)
    mask_BxTxMxN = mask_BxTxMxN.astype(x_BxTxD.dtype)
    w1_FxD = self.w1_MxNxD[...].reshape(self.config.d_ff, -1)
    hidden_BxTxMxN = jax.nn.relu(self._by_block(times_rows(x_BxTxD, w1_FxD)) * mask_BxTxMxN)
    if self.config.multiply_by_controller_output:
      hidden_BxTxMxN *= gain_BxTxMxN.astype(x_BxTxD.dtype)
    y_BxTxD = jnp.einsum('BTMN,MND->BTD', hidden_BxTxMxN, self.w2_MxNxD[...]) + self.bias_D[...]
    return dropout(y_BxTxD, self.rate, key=dropout_key, shared_axes=(0, 1)), units_BxTxM

  def choose(self, x_BxD: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Returns the units_BxM that the controller selects at one position, and their gain_BxM after the ReLU.

    The gain is None unless `config.multiply_by_controller_output` is set.
    """
    logits_BxMxN = self.logits(x_BxD)
    units_BxM = select_units(logits_BxMxN)
    if not self.config.multiply_by_controller_output:
      return units_BxM, None
    soft_BxMxN = jax.nn.softmax(logits_BxMxN)
    return units_BxM, jnp.take_along_axis(soft_BxMxN, units_BxM[..., None].astype(jnp.int32), axis=-1)[..., 0]

  def read_rows(self, x_BxD: jax.Array, units_BxM: jax.Array, gain_BxM: jax.Array | None) -> jax.Array:
    """Returns the result of the selected units at one position, BxD.

    Reads M rows of w1 and of w2, which may be stored in a smaller type.
    """
    block_M = jnp.arange(self.config.n_blocks)
    rows1_BxMxD = self.w1_MxNxD[...][block_M, units_BxM].astype(x_BxD.dtype)
    rows2_BxMxD = self.w2_MxNxD[...][block_M, units_BxM].astype(x_BxD.dtype)
    hidden_BxM = jax.nn.relu(jnp.einsum('BD,BMD->BM', x_BxD, rows1_BxMxD))
    if gain_BxM is not None:
      hidden_BxM *= gain_BxM
    return jnp.einsum('BM,BMD->BD', hidden_BxM, rows2_BxMxD) + self.bias_D[...]

  def step(self, x_BxD: jax.Array) -> jax.Array:
    """Computes one position."""
    return self.read_rows(x_BxD, *self.choose(x_BxD))
