"""One expert a token, chosen as SparseFF chooses units: a baseline of the paper (section 3.1).

E experts.
"""

import jax
import jax.numpy as jnp

from terraformer.layers.expert_ff import ExpertFF
from terraformer.ops.choice import straight_through


class BlockSparseFF(ExpertFF):
  """In training the mask is, drawn once a call, the straight-through one-hot of a noisy choice or the router's softmax.

  In evaluation it is the one-hot of the likeliest expert.
  """

  def _mask(self, soft_xE: jax.Array, expert_x: jax.Array, draw_key: jax.Array | None) -> jax.Array:
    if draw_key is None:
      return jax.nn.one_hot(expert_x, self.config.n_experts, dtype=soft_xE.dtype)
    hard = jax.random.bernoulli(draw_key, self.config.hard_probability)
    return jnp.where(hard, straight_through(expert_x, soft_xE), soft_xE)
