"""Initial values have the bounds and standard deviations of the authors' code; arrays have at least 1,000 numbers."""

import math

import jax
import numpy as np
import pytest

from terraformer.config import (
  AxialPositionsConfig,
  BlockSparseFFConfig,
  DenseFFConfig,
  FixedBasePositionsConfig,
  LayerNormConfig,
  RMSNormConfig,
  SparseFFConfig,
  SparseProjectionConfig,
  SRUConfig,
)
from terraformer.layers.dense import Dense
from terraformer.layers.dense_ff import DenseFF
from terraformer.layers.embedding import Embedding
from terraformer.layers.mixture_of_experts import BlockSparseFF
from terraformer.layers.modular_convolution import ModularConvolution
from terraformer.layers.multiplicative import MultiplicativeDense
from terraformer.layers.multiplicative_modular import MultiplicativeModularDense
from terraformer.layers.norm import LayerNorm, RMSNorm
from terraformer.layers.output import LowRankOutput
from terraformer.layers.parameter import parameter
from terraformer.layers.positions import AxialPositions, FixedBasePositions
from terraformer.layers.sparse_ff import SparseFF
from terraformer.layers.sparse_qkv import SparseProjection
from terraformer.layers.sru import SRU

KEY = jax.random.key(0)


def _glorot(fan_in, fan_out):
  return math.sqrt(6 / (fan_in + fan_out))


def _sparse_ff():
  return SparseFF(SparseFFConfig(d_ff=1200, block_size=12, rank=20), 60, 0.0, key=KEY)


def _modular():
  return MultiplicativeModularDense(4, 80, key=KEY)


def _fixed_base():
  return FixedBasePositions(FixedBasePositionsConfig(), 9, 1200, key=KEY)


def _block_sparse_ff():
  return BlockSparseFF(BlockSparseFFConfig(d_ff=1200, n_experts=20), 60, 0.0, key=KEY)


UNIFORM = {
  'dense': (lambda: Dense(60, 40, key=KEY).kernel_DxF, _glorot(60, 40)),
  'dense_ff_in': (lambda: DenseFF(DenseFFConfig(200), 60, 0.0, key=KEY).expand.kernel_DxF, _glorot(60, 200)),
  'sru_gates': (lambda: SRU(SRUConfig(40), key=KEY).gates.kernel_DxF, _glorot(40, 120)),
  'multiplicative_projection': (lambda: MultiplicativeDense(4, 60, 80, key=KEY).projection_DxW, _glorot(60, 20)),
  'modular_projection': (lambda: _modular().projection_DxW, _glorot(80, 20)),
  # The fans do not count the modules.
  'modular_kernel': (lambda: _modular().modular_SxWxV, _glorot(20, 20)),
  'controller_in': (lambda: _sparse_ff().controller_DxR, _glorot(60, 20)),
  'controller_out': (lambda: _sparse_ff().controller_RxMxN, _glorot(20, 1200)),
  'sparse_ff_in': (lambda: _sparse_ff().w1_MxNxD, _glorot(60, 1200)),
  'sparse_ff_out': (lambda: _sparse_ff().w2_MxNxD, _glorot(1200, 60)),
  'router': (lambda: _block_sparse_ff().router_DxE, _glorot(60, 20)),
  'experts_in': (lambda: _block_sparse_ff().w1_ExFxD, _glorot(60, 1200)),
  'experts_out': (lambda: _block_sparse_ff().w2_ExFxD, _glorot(1200, 60)),
  'low_rank_in': (lambda: LowRankOutput(20, 60, 90, key=KEY).contract.kernel_DxF, _glorot(60, 20)),
  'low_rank_out': (lambda: LowRankOutput(20, 60, 90, key=KEY).expand.kernel_DxF, _glorot(20, 90)),
  'fixed_base_digits': (lambda: _fixed_base().weights_NxIxW, 1e-4),
  'fixed_base_start': (lambda: _fixed_base().start_D, 1e-4),
  'embedding': (lambda: Embedding(90, 60, key=KEY).table_VxD, math.sqrt(3 / 60)),
}

NORMAL = {
  'gating': (lambda: MultiplicativeDense(8, 200, 80, key=KEY).gating_SxD, 0.5),
  'modular_gating': (lambda: MultiplicativeModularDense(8, 200, key=KEY).gating_SxD, 0.5),
  'axial_positions': (lambda: AxialPositions(AxialPositionsConfig((50,), (60,)), 50, 60, key=KEY).tables_CxW[0], 1.0),
  # The fans are the widths of one module; they do not count the kernel's 9 taps.
  'convolution': (lambda: ModularConvolution(20, 3, 3, key=KEY).kernel_CxExVxW, math.sqrt(2 / 40)),
  'dense_bias': (lambda: Dense(2, 1500, key=KEY).bias_F, 1e-6),
  'convolution_bias': (lambda: ModularConvolution(1500, 1, 1, key=KEY).bias_W, 1e-6),
  'multiplicative_bias': (lambda: MultiplicativeDense(4, 2, 1600, key=KEY).bias_SxW, 1e-6),
  'modular_bias': (lambda: MultiplicativeModularDense(150, 1500, key=KEY).bias_SxV, 1e-6),
  'low_rank_bias': (lambda: LowRankOutput(2, 2, 1500, key=KEY).expand.bias_F, 1e-6),
  'experts_bias': (lambda: BlockSparseFF(BlockSparseFFConfig(4, 2), 1500, 0.0, key=KEY).bias_D, 1e-6),
  'controller_bias': (lambda: _sparse_ff().controller_bias_MxN, 1e-6),
  'sparse_ff_bias': (lambda: SparseFF(SparseFFConfig(4, 2, 2), 1500, 0.0, key=KEY).bias_D, 1e-6),
}


@pytest.mark.parametrize('name', UNIFORM)
def test_matrices_are_uniform_within_the_bound(name):
  make, bound = UNIFORM[name]
  values = np.asarray(make()[...])
  # The variance of n uniform numbers has a relative standard deviation of 0.9 / sqrt(n), and its root half of that.
  assert np.abs(values).max() <= bound
  np.testing.assert_allclose(values.std(), bound / math.sqrt(3), rtol=4 * 0.45 / math.sqrt(values.size))


@pytest.mark.parametrize('name', NORMAL)
def test_other_arrays_are_normal_with_their_standard_deviation(name):
  make, deviation = NORMAL[name]
  values = np.asarray(make()[...])
  np.testing.assert_allclose(values.std(), deviation, rtol=4 / math.sqrt(2 * values.size))
  # Uniform numbers end at 1.73 deviations. The largest of 1,000 normal numbers exceeds 2.5 but for one case in 1e5.
  assert np.abs(values).max() > 2.5 * deviation


def test_normalization_starts_with_scale_1_and_bias_0():
  layer = LayerNorm(LayerNormConfig(), 24)
  assert (layer.scale_D[...] == 1).all() and (layer.bias_D[...] == 0).all()
  assert (RMSNorm(RMSNormConfig(), 24).scale_D[...] == 1).all()


@pytest.mark.parametrize(('one', 'other'), [('query', 'key'), ('query', 'value'), ('key', 'value')])
def test_submodules_have_different_initial_values(one, other):
  layer = SparseProjection(SparseProjectionConfig(4, 3, 1), 24, 3, key=KEY)
  kernels = (getattr(layer, name).kernel_CxExVxW[...] for name in (one, other))
  assert not np.allclose(*kernels)


def test_every_dimension_needs_a_name():
  with pytest.raises(ValueError, match='expected one name for each of 2 dimensions'):
    parameter(np.zeros((2, 3)), ('embed',))
