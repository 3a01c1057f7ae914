"""The feed-forward block of one expert a token, scaled by its probability (Switch): a baseline of the paper.

E experts.
"""

import jax

from terraformer.layers.expert_ff import ExpertFF


class SwitchFF(ExpertFF):
  """The mask is the chosen expert's probability without noise, in training and in evaluation alike.

  The router learns by that factor alone; the choice itself, noisy in training, passes no gradient.
  """

  def _mask(self, soft_xE: jax.Array, expert_x: jax.Array, draw_key: jax.Array | None) -> jax.Array:
    return jax.nn.one_hot(expert_x, self.config.n_experts, dtype=soft_xE.dtype) * soft_xE
