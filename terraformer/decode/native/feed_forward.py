"""Describes feed-forward blocks and the parallel recurrence to the native library.

Each kind of block has a function here, chosen by the layer's type.

D d_model, M blocks, N units per block, R controller rank, U width of the recurrence.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from terraformer.decode.native.description import (
  INPUTS_BY_OUTPUTS,
  WHOLE_ROW,
  ByExactType,
  Description,
  Kept,
  NoKernelError,
  Streams,
  dense,
  make_ready,
  normalize,
)
from terraformer.decode.stored import MatrixView
from terraformer.layers.dense_ff import DenseFF
from terraformer.layers.sparse_ff import SparseFF
from terraformer.native import layout

# The controller's second matrix: the units of each block start a new panel.
_UNITS_OF_BLOCKS = MatrixView((0, 1, 2), 1, in_blocks=True)


def recur(to: Description, branch: Any, streams: Streams, end: dict, of_caches: Callable) -> None:
  """Adds the recurrent branch parallel to a feed-forward block; `end` holds the columns of its last operation."""
  width = branch.sru.config.width
  normed = to.buffer('normed', to.d_model, segment=WHOLE_ROW)
  low, gates, read = to.buffer('low', width), to.buffer('gates', 3 * width), to.buffer('read', width)
  normalize(to, branch.norm, streams.buffers[-1:], normed)
  dense(to, branch.contract, normed, target=low)
  dense(to, branch.sru.gates, low, small=True, target=gates)
  at = to.plan.state(width)
  to.states.append(Kept(at, of_caches))
  to.plan.add('recur', source=low, second=gates, target=read, state_offset=at, tanh=int(branch.sru.config.tanh))
  dense(to, branch.expand, read, small=True, **end)


@ByExactType
def feed_forward(layer: Any, to: Description, source: int, end: dict[str, int]) -> None:
  """Adds a feed-forward block; `end` holds the columns of its last operation."""
  raise NoKernelError(type(layer).__name__)


@feed_forward.register(DenseFF)
def _(layer: DenseFF, to: Description, source: int, end: dict[str, int]) -> None:
  hidden = to.buffer('hidden', layer.expand.kernel_DxF.get_value().shape[1], segment=WHOLE_ROW)
  dense(to, layer.expand, source, target=hidden, relu=1)
  make_ready(to, hidden)
  dense(to, layer.contract, hidden, **end)


@feed_forward.register(SparseFF)
def _(layer: SparseFF, to: Description, source: int, end: dict[str, int]) -> None:
  config, plan, d = layer.config, to.plan, to.d_model
  m, n, r = config.n_blocks, config.block_size, config.rank
  low, hidden = to.buffer('controller', r, segment=WHOLE_ROW), to.buffer('units', m)
  first = to.matrix(layer.controller_DxR, INPUTS_BY_OUTPUTS)
  second = to.matrix(layer.controller_RxMxN, _UNITS_OF_BLOCKS)
  padded = -(-n // layout.PANEL) * layout.PANEL
  bias = to.vector(layer.controller_bias_MxN, lambda bias_MxN: np.pad(bias_MxN, ((0, 0), (0, padded - n))), m * padded)
  w1, w2 = to.rows(layer.w1_MxNxD), to.rows(layer.w2_MxNxD)
  blocks = {'n_blocks': m, 'block': n, 'pick': plan.n_picks}
  plan.add('dense', source=source, target=low, matrix=first)
  if layout.stretch_of(d) == d:  # otherwise the sum over stretches rounds it
    make_ready(to, low)
  by_gain = int(config.multiply_by_controller_output)
  plan.add(
    'pick', source=low, second=source, target=hidden, matrix=second, bias=bias, table=w1, by_gain=by_gain, **blocks
  )
  plan.add('gather', source=hidden, table=w2, bias=to.vector(layer.bias_D), **blocks, **end)
  plan.n_picks += 1
