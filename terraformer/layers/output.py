"""Output layers, which map vectors to logits.

D d_model, V vocabulary, R rank of the low-rank layer, S modules of the sparse layer and W outputs per module.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import DenseOutputConfig, LowRankOutputConfig, SparseOutputConfig
from terraformer.layers.dense import Dense
from terraformer.layers.parameter import glorot_uniform, parameter, small_normal
from terraformer.ops.products import has_many_vectors, times_rows


def dense_output(config: DenseOutputConfig, d_model: int, vocab_size: int, *, key: jax.Array) -> Dense:
  """Returns an output layer that is one dense layer."""
  return Dense(d_model, vocab_size, key=key, axes=('embed', 'vocab'))


class LowRankOutput(nnx.Module):
  """Computes y = x contract expand + bias, a dense layer of rank R."""

  def __init__(self, rank: int, d_model: int, vocab_size: int, *, key: jax.Array):
    """Initializes the kernels Glorot uniform, the bias N(0, 1e-6)."""
    contract_key, expand_key = jax.random.split(key)
    # The authors' layer also has a bias between the two kernels, which is redundant with the final bias.
    self.contract = Dense(d_model, rank, key=contract_key, bias=False)
    self.expand = Dense(rank, vocab_size, key=expand_key, axes=(None, 'vocab'))

  def __call__(self, x_xD: jax.Array) -> jax.Array:
    """Maps ...xD to logits ...xV; decoding calls it too."""
    return self.expand(self.contract(x_xD))


def low_rank_output(config: LowRankOutputConfig, d_model: int, vocab_size: int, *, key: jax.Array) -> LowRankOutput:
  """Returns an output layer of the config's rank."""
  return LowRankOutput(config.rank, d_model, vocab_size, key=key)


class SparseOutput(nnx.Module):
  """Computes y[s, w] = sum_d x[d] gating[s, d] projection[w, d] + bias[s, w] (paper, section 3.2).

  This is `MultiplicativeDense` with the projection transposed. The weights of an output are contiguous, which is the
  fastest order for a CPU to multiply a large matrix by a few vectors.
  """

  def __init__(self, config: SparseOutputConfig, d_model: int, vocab_size: int, *, key: jax.Array):
    """Initializes the gating N(0, 0.5), the projection Glorot uniform, the bias N(0, 1e-6).

    Raises:
      ValueError: if `config.n_modules` does not divide `vocab_size`.
    """
    n_modules = config.n_modules
    if vocab_size % n_modules:
      raise ValueError(f'vocab_size: expected a multiple of n_modules ({n_modules}), found {vocab_size}')
    width = vocab_size // n_modules
    gating_key, projection_key, bias_key = jax.random.split(key, 3)
    self.gating_SxD = parameter(jax.random.normal(gating_key, (n_modules, d_model)) * 0.5, ('modules', 'embed'))
    projection_WxD = glorot_uniform(projection_key, (width, d_model), d_model, width)
    self.projection_WxD = parameter(projection_WxD, ('vocab', 'embed'))
    self.bias_SxW = parameter(small_normal(bias_key, (n_modules, width)), ('modules', 'vocab'), decays=False)

  def __call__(self, x_xD: jax.Array) -> jax.Array:
    """Returns logits ...x(S W), module by module."""
    gated_xSxD = x_xD[..., None, :] * self.gating_SxD[...]
    if has_many_vectors(x_xD):  # with the matrix as the first factor, their logits would be transposed in memory
      y_xSxW = times_rows(gated_xSxD, self.projection_WxD[...])
    else:
      y_Wx_xS = jnp.einsum('WD,...SD->W...S', self.projection_WxD[...], gated_xSxD)
      y_xSxW = jnp.moveaxis(y_Wx_xS, 0, -1)
    return (y_xSxW + self.bias_SxW[...]).reshape(*x_xD.shape[:-1], -1)
