"""The simple recurrent unit's elementwise recurrence over time.

B batch, T time, W width.
"""

import jax
import jax.numpy as jnp


def linear_recurrence(
  forget_BxTxW: jax.Array, update_BxTxW: jax.Array, initial_BxW: jax.Array, anew_BxT: jax.Array | None = None
) -> jax.Array:
  """States c_t = f_t * c_{t-1} + (1 - f_t) * u_t for all t, shape BxTxW; where `anew_BxT` is true c_{t-1} is 0."""

  # What does not need the state is computed of all positions at once.
  added_BxTxW = (1 - forget_BxTxW) * update_BxTxW
  if anew_BxT is not None:
    forget_BxTxW = jnp.where(anew_BxT[..., None], 0, forget_BxTxW)

  def advance(state_BxW, inputs):
    forget_BxW, added_BxW = inputs
    state_BxW = forget_BxW * state_BxW + added_BxW
    return state_BxW, state_BxW

  time_major = forget_BxTxW.swapaxes(0, 1), added_BxTxW.swapaxes(0, 1)
  # Unrolled by 8, a scan on a CPU is three times as fast, forwards and backwards, as an associative scan.
  _, states_TxBxW = jax.lax.scan(advance, initial_BxW, time_major, unroll=8)
  return states_TxBxW.swapaxes(0, 1)
