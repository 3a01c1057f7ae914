"""The simple recurrent unit's elementwise recurrence over time.

B batch, T time, W width.
"""

import jax
import jax.numpy as jnp


def linear_recurrence(
  forget_BxTxW: jax.Array, update_BxTxW: jax.Array, initial_BxW: jax.Array, start_BxT: jax.Array | None = None
) -> jax.Array:
  """Returns the states c_t = f_t * c_{t-1} + (1 - f_t) * u_t, BxTxW; where `start_BxT` is True, c_{t-1} is 0."""

  # Everything that does not depend on the state is computed for all positions at once.
  added_BxTxW = (1 - forget_BxTxW) * update_BxTxW
  if start_BxT is not None:
    forget_BxTxW = jnp.where(start_BxT[..., None], 0, forget_BxTxW)

  def advance(state_BxW, inputs):
    forget_BxW, added_BxW = inputs
    state_BxW = forget_BxW * state_BxW + added_BxW
    return state_BxW, state_BxW

  time_major = forget_BxTxW.swapaxes(0, 1), added_BxTxW.swapaxes(0, 1)
  # On a CPU, a scan unrolled by 8 is three times as fast as an associative scan, forward and backward.
  _, states_TxBxW = jax.lax.scan(advance, initial_BxW, time_major, unroll=8)
  return states_TxBxW.swapaxes(0, 1)
