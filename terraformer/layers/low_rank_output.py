"""The output layer of two small matrices in the place of a large one.

D d_model, R rank, V vocabulary.
"""

import jax
from flax import nnx

from terraformer.layers.dense import Dense


class LowRankOutput(nnx.Module):
  """y = x contract expand + bias: a dense layer of rank R."""

  def __init__(self, rank: int, d_model: int, vocab_size: int, *, key: jax.Array):
    """Kernels Glorot uniform, bias N(0, 1e-6)."""
    contract_key, expand_key = jax.random.split(key)
    # The authors' low-rank dense layer has a bias between the two as well, which adds nothing to the one behind them.
    self.contract = Dense(d_model, rank, key=contract_key, bias=False)
    self.expand = Dense(rank, vocab_size, key=expand_key, axes=(None, 'vocab'))

  def __call__(self, x_xD: jax.Array) -> jax.Array:
    """Shape ...xD to logits ...xV; a single token needs no other path."""
    return self.expand(self.contract(x_xD))
