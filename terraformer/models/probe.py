"""Counts which units the controllers of a model select.

L layers, B batch, T time, M blocks, N units per block.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.models.base import Model
from terraformer.models.stack import Stack
from terraformer.models.sublayers import SequenceMasks
from terraformer.ops.reversible import StackInputs, Streams, apply_layer
from terraformer.ops.segments import Segments


class _ProbedStack(nnx.Module):
  """A stack that passes the selected units of its feed-forward layers to `keep` while it computes all positions."""

  def __init__(self, stack: Stack, keep: Callable[[jax.Array], None]):
    self.stack, self.keep = stack, keep
    self.residual = stack.residual

  def __call__(
    self, streams: Streams, masks: SequenceMasks, memory_BxSxD: jax.Array | None = None, *, key=None
  ) -> Streams:
    def layer(streams, block):
      inputs = StackInputs(block, None, masks, memory_BxSxD)
      streams, routing = apply_layer(self.stack.spec, inputs, streams)
      return streams, routing[-1]

    streams, units_LxBxTxM = self.stack.scan(layer, streams, self.stack.blocks)
    self.keep(units_LxBxTxM)
    return streams


def unit_counts(
  model: Model, inputs_BxS: jax.Array, targets_BxT: jax.Array, *, segments: Segments | None = None
) -> dict[str, jax.Array]:
  """Counts how often each unit is selected on a batch, in evaluation.

  Args:
    model: any model; stacks without sparse feed-forward layers are skipped.
    inputs_BxS, targets_BxT: tokens; 0 is padding.
    segments: segments of packed rows; else None.

  Returns:
    Counts over real positions: name of the stack -> int32 LxMxN.
  """
  found: dict[str, jax.Array] = {}
  probed = jax.tree.map(lambda x: x, model)
  layers = {name: block.feed_forward for name, block in model.config.blocks.items()}
  sparse = {name: config for name, config in layers.items() if config.picks_units}
  for name in sparse:
    setattr(probed, name, _ProbedStack(getattr(model, name), lambda units, name=name: found.update({name: units})))
  probed.hidden(inputs_BxS, targets_BxT, segments=segments)
  lengths = model.stack_lengths(inputs_BxS, targets_BxT)
  return {name: _count(found[name], lengths[name], config.block_size) for name, config in sparse.items()}


def _count(units_LxBxTxM: jax.Array, length_B: jax.Array, n_units: int) -> jax.Array:
  """Returns counts LxMxN of the units at the first `length_B` positions."""
  real_BxT = (jnp.arange(units_LxBxTxM.shape[2]) < length_B[:, None]).astype(jnp.int32)

  def one_layer(units_BxTxM):
    # Padding counts for an extra unit after the last.
    units_BxTxM = jnp.where(real_BxT[..., None] > 0, units_BxTxM.astype(jnp.int32), n_units)
    count = lambda units_BxT: jnp.bincount(units_BxT.ravel(), length=n_units + 1)[:n_units]  # noqa: E731
    return jax.vmap(count, in_axes=-1)(units_BxTxM)

  return jax.lax.map(one_layer, units_LxBxTxM)
