"""Source and target of each example in one causal sequence, for Terraformer's decoder and language models.

B batch, S source time, T target time, P = S + T, D d_model.
"""

import jax
import jax.numpy as jnp

from terraformer.config import BlockConfig
from terraformer.models.base import causal_padding_mask, n_tokens
from terraformer.models.sublayers import SequenceMasks
from terraformer.ops.positions import read_after, write_after
from terraformer.ops.segments import Interleaved, Segments


class OneSequence:
  """A sequence in which each target follows its source directly and all padding is at the end.

  In packed rows, the examples follow each other.

  Attributes:
    segment_BxP: segment of every position; None if rows are not packed.
  """

  def __init__(self, inputs_BxS: jax.Array, targets_BxT: jax.Array, segments: Segments | None):
    """`segments` are the segments of packed rows; None if rows are not packed."""
    self._n_inputs_B, n_targets_B = n_tokens(inputs_BxS), n_tokens(targets_BxT)
    self._n_targets = targets_BxT.shape[1]
    self._packed = None if segments is None else Interleaved(segments)
    self.segment_BxP = None if self._packed is None else self._packed.segment_BxP
    self._real_BxP = jnp.arange(inputs_BxS.shape[1] + self._n_targets) < (self._n_inputs_B + n_targets_B)[:, None]

  def masks(self, block: BlockConfig) -> SequenceMasks:
    """Returns the masks for a causal stack of these blocks."""
    return SequenceMasks(causal_padding_mask(block, self._real_BxP), segment_BxT=self.segment_BxP)

  def write(self, first_BxSxD: jax.Array, second_BxTxD: jax.Array) -> jax.Array:
    """Returns the sequence, BxPxD, of vectors of the sources and of the targets."""
    if self._packed is None:
      return write_after(first_BxSxD, self._n_inputs_B, second_BxTxD)
    return self._packed.write(first_BxSxD, second_BxTxD)

  def read(self, both_BxPxD: jax.Array) -> jax.Array:
    """Returns the vectors of the targets, BxTxD."""
    if self._packed is None:
      return read_after(both_BxPxD, self._n_inputs_B, self._n_targets)
    return self._packed.read(both_BxPxD)
