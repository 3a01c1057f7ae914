"""The next token from logits.

B batch, V vocabulary.
"""

import jax
import jax.numpy as jnp


def sample(logits_BxV: jax.Array, temperature: jax.Array, key: jax.Array) -> jax.Array:
  """The likeliest token where `temperature` is 0, else a draw from softmax(logits / temperature); token_B.

  Padding (token 0) is never drawn.
  """
  logits_BxV = logits_BxV.astype(jnp.float32).at[:, 0].set(-jnp.inf)
  drawn_B = jax.random.categorical(key, logits_BxV / jnp.maximum(temperature, 1e-6))
  return jnp.where(temperature > 0, drawn_B, logits_BxV.argmax(-1)).astype(jnp.int32)
