"""The next token from logits.

B batch, V vocabulary.
"""

import jax
import jax.numpy as jnp

from terraformer.models.generate import writable


def sample(logits_BxV: jax.Array, n_ids: int, temperature: jax.Array, key: jax.Array) -> jax.Array:
  """The likeliest token where `temperature` is 0, else a draw from softmax(logits / temperature); token_B.

  Only tokens from 1 to `n_ids` - 1 are drawn: not padding, nor ids that the vocabulary does not have.
  """
  logits_BxV = writable(logits_BxV, n_ids)
  drawn_B = jax.random.categorical(key, logits_BxV / jnp.maximum(temperature, 1e-6))
  return jnp.where(temperature > 0, drawn_B, logits_BxV.argmax(-1)).astype(jnp.int32)
