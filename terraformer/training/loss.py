"""The training loss.

B batch, T time, D d_model, V vocabulary.
"""

import jax
import jax.numpy as jnp

from terraformer.models.base import Model
from terraformer.ops.chunks import in_chunks
from terraformer.ops.routing import first_of_largest
from terraformer.ops.segments import Segments


def model_losses(
  model: Model,
  inputs_BxS: jax.Array,
  targets_BxT: jax.Array,
  *,
  segments: Segments | None = None,
  key: jax.Array | None = None,
) -> dict[str, jax.Array]:
  """Returns the losses of a model on a batch, computed in chunks of target positions so BxTxV logits never exist.

  Args:
    model: the model; its config's `loss_chunk` is the chunk length, where 0 means all positions at once.
    inputs_BxS, targets_BxT: tokens; 0 is padding.
    segments: segments of packed rows, or None.
    key: random key for the model's noise; None for evaluation.

  Returns:
    The result of `token_losses`.
  """
  x_BxTxD = model.hidden(inputs_BxS, targets_BxT, segments=segments, key=key)

  def one(_, x_and_targets):
    x_BxCxD, targets_BxC = x_and_targets
    return token_losses(model.logits(x_BxCxD), targets_BxC)

  return in_chunks(one, model.config.loss_chunk, x_BxTxD.shape[1])((x_BxTxD, targets_BxT))


def token_losses(logits_BxTxV: jax.Array, targets_BxT: jax.Array) -> dict[str, jax.Array]:
  """Returns the cross-entropy of every target token, in nats, float32.

  Args:
    logits_BxTxV: logits of the model.
    targets_BxT: target tokens; 0 is padding.

  Returns:
    `loss_BxT`, `correct_BxT` (1 if the most likely token is the target) and `mask` BxT (1 for real tokens).
  """
  logits_BxTxV = logits_BxTxV.astype(jnp.float32)
  log_normaliser_BxT = jax.nn.logsumexp(logits_BxTxV, axis=-1)
  # Not a gather, because its gradient would be a scatter into an array of this size.
  is_target_BxTxV = jax.lax.broadcasted_iota(targets_BxT.dtype, logits_BxTxV.shape, 2) == targets_BxT[..., None]
  target_BxT = jnp.where(is_target_BxTxV, logits_BxTxV, 0).sum(-1)
  return {
    'loss_BxT': log_normaliser_BxT - target_BxT,
    'correct_BxT': (first_of_largest(logits_BxTxV) == targets_BxT).astype(jnp.float32),
    'mask': (targets_BxT != 0).astype(jnp.float32),
  }


def summed_loss(losses: dict[str, jax.Array]) -> jax.Array:
  """Returns the sum over the real tokens."""
  return (losses['loss_BxT'] * losses['mask']).sum()
