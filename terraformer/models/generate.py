"""Greedy generation for a whole batch in one compiled loop, for samples during training.

B batch, S source time, T target time, V vocabulary.
"""

import jax
import jax.numpy as jnp

from terraformer.models.loop import decode_loop

END = 1


def mask_reserved_ids(logits_BxV: jax.Array, n_ids: int) -> jax.Array:
  """Returns the logits with -inf for padding and for ids from `n_ids` on, which are not in the vocabulary."""
  id_V = jnp.arange(logits_BxV.shape[-1])
  return jnp.where((id_V > 0) & (id_V < n_ids), logits_BxV.astype(jnp.float32), -jnp.inf)


def generate(model, inputs_BxS: jax.Array, n_tokens: int, n_ids: int) -> jax.Array:
  """Generates the most likely next token repeatedly until every example has ended.

  Args:
    model: a model with `prefill` and `step`.
    inputs_BxS: source tokens, right-padded with 0.
    n_tokens: T, the maximum number of tokens.
    n_ids: size of the vocabulary.

  Returns:
    tokens_BxT, 0 after an example's end token.
  """
  batch = inputs_BxS.shape[0]

  def step(t, carry):
    token_B, ended_B, tokens_BxT, state = carry
    logits_BxV, state = model.step(token_B, state)
    token_B = jnp.where(ended_B, 0, mask_reserved_ids(logits_BxV, n_ids).argmax(-1).astype(jnp.int32))
    return token_B, ended_B | (token_B == END), tokens_BxT.at[:, t].set(token_B), state

  start_B = jnp.zeros(batch, jnp.int32)
  carry = start_B, start_B > 0, jnp.zeros((batch, n_tokens), jnp.int32), model.prefill(inputs_BxS, n_tokens)
  _, (_, _, tokens_BxT, _) = decode_loop(step, carry, n_tokens, lambda carry: ~carry[1].all())
  return tokens_BxT
