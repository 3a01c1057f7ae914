"""Greedy generation for a whole batch in one compiled loop, for samples during training and for evaluation.

B batch, S source time, T target time, V vocabulary.
"""

import jax
import jax.numpy as jnp

END = 1


def writable(logits_BxV: jax.Array, n_ids: int) -> jax.Array:
  """The logits with -inf at padding and at ids from `n_ids` on: rows of the model that the vocabulary does not fill."""
  id_V = jnp.arange(logits_BxV.shape[-1])
  return jnp.where((id_V > 0) & (id_V < n_ids), logits_BxV.astype(jnp.float32), -jnp.inf)


def generate(model, inputs_BxS: jax.Array, n_tokens: int, n_ids: int) -> jax.Array:
  """The likeliest next token, again and again, until every example has ended.

  Args:
    model: has `prefill` and `step`.
    inputs_BxS: source tokens, right-padded with 0.
    n_tokens: T, tokens that are generated at most.
    n_ids: size of the vocabulary.

  Returns:
    tokens_BxT, 0 after an example's end token.
  """
  batch = inputs_BxS.shape[0]

  def unfinished(carry):
    t, _, ended_B, _, _ = carry
    return (t < n_tokens) & ~ended_B.all()

  def advance(carry):
    t, token_B, ended_B, tokens_BxT, cache = carry
    logits_BxV, cache = model.step(token_B, cache)
    token_B = jnp.where(ended_B, 0, writable(logits_BxV, n_ids).argmax(-1).astype(jnp.int32))
    return t + 1, token_B, ended_B | (token_B == END), tokens_BxT.at[:, t].set(token_B), cache

  start_B = jnp.zeros(batch, jnp.int32)
  carry = (0, start_B, start_B > 0, jnp.zeros((batch, n_tokens), jnp.int32), model.prefill(inputs_BxS, n_tokens))
  return jax.lax.while_loop(unfinished, advance, carry)[3]
