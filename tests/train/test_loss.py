import jax.numpy as jnp
import numpy as np

from terraformer.train.loss import mean_loss, token_losses


def test_loss_and_accuracy_count_real_tokens_alone():
  rng = np.random.default_rng(0)
  logits_BxTxV = rng.normal(size=(2, 3, 5)).astype(np.float32)
  targets_BxT = np.array([[4, 2, 0], [1, 0, 0]])
  losses = token_losses(jnp.asarray(logits_BxTxV), jnp.asarray(targets_BxT))
  probabilities = np.exp(logits_BxTxV) / np.exp(logits_BxTxV).sum(-1, keepdims=True)
  real = [(0, 0), (0, 1), (1, 0)]
  expected = [-np.log(probabilities[b, t, targets_BxT[b, t]]) for b, t in real]
  np.testing.assert_allclose(mean_loss(losses), np.mean(expected), rtol=1e-6)
  np.testing.assert_array_equal(losses['mask'], targets_BxT != 0)
  np.testing.assert_array_equal(losses['correct_BxT'], logits_BxTxV.argmax(-1) == targets_BxT)


def test_a_batch_of_padding_has_no_loss():
  losses = token_losses(jnp.ones((1, 2, 4)), jnp.zeros((1, 2), jnp.int32))
  assert mean_loss(losses) == 0
