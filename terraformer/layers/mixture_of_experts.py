"""The paper's mixture-of-experts baselines: a router selects one slice of the feed-forward block for each token.

B batch, T time, D d_model, E experts, F units per expert.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import BlockSparseFFConfig, SwitchFFConfig
from terraformer.layers.parameter import glorot_uniform, parameter, small_normal
from terraformer.ops.dropout import dropout
from terraformer.ops.keys import split_key
from terraformer.ops.routing import select_units, straight_through


class MixtureOfExpertsFF(nnx.Module):
  """Computes y = relu((x w1) mask) w2 + b2. The mask has one number per expert; subclasses define it.

  The mask is applied before the ReLU, whose gradient at 0 is 0, so experts with mask 0 learn nothing.
  """

  def __init__(self, config: BlockSparseFFConfig | SwitchFFConfig, d_model: int, rate: float, *, key: jax.Array):
    """Initializes kernels Glorot uniform, the bias N(0, 1e-6).

    `rate` is the dropout rate of the output; all tokens of a call share one mask.
    """
    self.config = config
    self.rate = rate
    e, f, d = config.n_experts, config.d_ff // config.n_experts, d_model
    router_key, w1_key, w2_key, bias_key = jax.random.split(key, 4)
    self.router_DxE = parameter(glorot_uniform(router_key, (d, e), d, e), ('embed', None), group='controller')
    axes = ('expert', None, 'embed')
    self.w1_ExFxD = parameter(glorot_uniform(w1_key, (e, f, d), d, config.d_ff), axes, row_axis=-3)
    self.w2_ExFxD = parameter(glorot_uniform(w2_key, (e, f, d), config.d_ff, d), axes, row_axis=-3)
    self.bias_D = parameter(small_normal(bias_key, (d,)), ('embed',), decays=False)

  def _mask(self, soft_xE: jax.Array, expert_x: jax.Array, hard_key: jax.Array | None) -> jax.Array:
    """Returns the mask ...xE from the router's softmax and the selected experts; for evaluation if the key is None."""
    raise NotImplementedError

  def logits(self, x_xD: jax.Array) -> jax.Array:
    """Returns the router's output, float32 ...xE."""
    return (x_xD @ self.router_DxE[...]).astype(jnp.float32)

  def __call__(
    self, x_BxTxD: jax.Array, *, key: jax.Array | None = None, routing: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """Computes all positions.

    Args:
      x_BxTxD: input.
      key: random key for noise, the choice of the mask, and dropout; None for evaluation, which takes the argmax.
      routing: expert_BxT of an earlier call to repeat; None to select experts.

    Returns:
      y_BxTxD, and the selected expert_BxT as routing.
    """
    noise_key, hard_key, dropout_key = split_key(key, 3)
    logits_BxTxE = self.logits(x_BxTxD)
    expert_BxT = routing
    if expert_BxT is None:
      expert_BxT = select_units(logits_BxTxE, temperature=self.config.temperature, key=noise_key)
    mask_BxTxE = self._mask(jax.nn.softmax(logits_BxTxE), expert_BxT, hard_key).astype(x_BxTxD.dtype)
    before_BxTxExF = jnp.einsum('BTD,EFD->BTEF', x_BxTxD, self.w1_ExFxD[...])
    hidden_BxTxExF = jax.nn.relu(before_BxTxExF * mask_BxTxE[..., None])
    y_BxTxD = jnp.einsum('BTEF,EFD->BTD', hidden_BxTxExF, self.w2_ExFxD[...]) + self.bias_D[...]
    return dropout(y_BxTxD, self.rate, key=dropout_key, shared_axes=(0, 1)), expert_BxT

  def step(self, x_BxD: jax.Array) -> jax.Array:
    """Computes one position and reads only the selected expert's rows of w1 and w2."""
    logits_BxE = self.logits(x_BxD)
    expert_B = select_units(logits_BxE)
    mask_BxE = self._mask(jax.nn.softmax(logits_BxE), expert_B, None)
    gain_Bx1 = jnp.take_along_axis(mask_BxE, expert_B[:, None].astype(jnp.int32), axis=-1)
    hidden_BxF = jax.nn.relu(jnp.einsum('BD,BFD->BF', x_BxD, self.w1_ExFxD[...][expert_B]) * gain_Bx1)
    return jnp.einsum('BF,BFD->BD', hidden_BxF, self.w2_ExFxD[...][expert_B]) + self.bias_D[...]


class BlockSparseFF(MixtureOfExpertsFF):
  """One expert per token, selected as SparseFF selects units: a baseline of the paper (section 3.1).

  In training, each call samples whether its mask is the straight-through one-hot of a noisy choice or the router's
  softmax. In evaluation, the mask is the one-hot of the most likely expert.
  """

  def _mask(self, soft_xE: jax.Array, expert_x: jax.Array, hard_key: jax.Array | None) -> jax.Array:
    if hard_key is None:
      return jax.nn.one_hot(expert_x, self.config.n_experts, dtype=soft_xE.dtype)
    hard = jax.random.bernoulli(hard_key, self.config.hard_probability)
    return straight_through(expert_x, soft_xE, hard)


class SwitchFF(MixtureOfExpertsFF):
  """One expert per token, scaled by its probability (Switch): a baseline of the paper.

  In training and evaluation, the mask is the selected expert's probability, computed without noise. The router learns
  only through this factor; the choice itself, which is noisy in training, passes no gradient.
  """

  def _mask(self, soft_xE: jax.Array, expert_x: jax.Array, hard_key: jax.Array | None) -> jax.Array:
    return jax.nn.one_hot(expert_x, self.config.n_experts, dtype=soft_xE.dtype) * soft_xE
