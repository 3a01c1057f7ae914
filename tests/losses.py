"""What a whole batch is trained on, for tests that take gradients themselves."""

import jax.numpy as jnp

from terraformer.training.loss import summed_loss


def mean_loss(losses):
  """Mean over the real tokens of what `model_losses` returns; 0 where there are none."""
  return summed_loss(losses) / jnp.maximum(losses['mask'].sum(), 1)
