"""Feed-forward blocks and the recurrence beside them, as the native library is told of them.

Each kind of block has its function here, which is found by the layer's type.

D d_model, M blocks, N units a block, R controller rank, U width of the recurrence.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from terraformer.decode.native.description import (
  WHOLE_ROW,
  Description,
  Kept,
  NoKernelError,
  Streams,
  dense,
  make_ready,
  normalise,
)
from terraformer.layers.dense_ff import DenseFF
from terraformer.layers.sparse_ff import SparseFF
from terraformer.native import layout


def recur(to: Description, branch: Any, path: str, streams: Streams, end: dict, of_caches: Callable) -> None:
  width = branch.sru.config.width
  normed = to.buffer('normed', to.d_model, segment=WHOLE_ROW)
  low, gates, read = to.buffer('low', width), to.buffer('gates', 3 * width), to.buffer('read', width)
  normalise(to, branch.norm, f'{path}.norm', streams.buffers[-1:], normed)
  dense(to, branch.contract, f'{path}.contract', normed, target=low)
  dense(to, branch.sru.gates, f'{path}.gates', low, small=True, target=gates)
  at = to.plan.state(width)
  to.states.append(Kept(at, of_caches))
  to.plan.add('recur', source=low, second=gates, target=read, state_offset=at, tanh=int(branch.sru.config.tanh))
  dense(to, branch.expand, f'{path}.expand', read, small=True, **end)


@functools.singledispatch
def feed_forward(layer: Any, to: Description, path: str, source: int, end: dict[str, int]) -> None:
  """A feed-forward block; `end` are the columns of its last operation."""
  raise NoKernelError(type(layer).__name__)


@feed_forward.register
def _(layer: DenseFF, to: Description, path: str, source: int, end: dict[str, int]) -> None:
  hidden = to.buffer('hidden', layer.expand.kernel_DxF[...].shape[1], segment=WHOLE_ROW)
  dense(to, layer.expand, f'{path}.expand', source, target=hidden, relu=1)
  make_ready(to, hidden)
  dense(to, layer.contract, f'{path}.contract', hidden, **end)


@feed_forward.register
def _(layer: SparseFF, to: Description, path: str, source: int, end: dict[str, int]) -> None:
  config, plan, d = layer.config, to.plan, to.d_model
  m, n, r = config.n_blocks, config.block_size, config.rank
  padding = (0, 0), (0, -n % layout.PANEL)  # a block begins with a panel
  padded = n + padding[1][1]
  low, hidden = to.buffer('controller', r, segment=WHOLE_ROW), to.buffer('units', m)
  first = to.matrix(f'{path}.controller1', lambda: layer.controller_DxR[...], (d, r))
  second = to.matrix(
    f'{path}.controller2',
    lambda: np.pad(np.asarray(layer.controller_RxMxN[...]), ((0, 0), *padding)).reshape(r, -1),
    (r, m * padded),
  )
  bias = to.vector(f'{path}.controller_bias', m * padded, lambda: np.pad(layer.controller_bias_MxN[...], padding))
  w1 = to.rows(f'{path}.w1', lambda: layer.w1_MxNxD[...], (m * n, d))
  w2 = to.rows(f'{path}.w2', lambda: layer.w2_MxNxD[...], (m * n, d))
  w2_bias = to.vector(f'{path}.bias', d, lambda: layer.bias_D[...])
  blocks = {'n_blocks': m, 'block': n, 'pick': plan.n_picks}
  plan.add('dense', source=source, target=low, matrix=first)
  if layout.stretch_of(d) == d:  # else it is added up from stretches, and rounded there
    make_ready(to, low)
  by_gain = int(config.multiply_by_controller_output)
  plan.add(
    'pick', source=low, second=source, target=hidden, matrix=second, bias=bias, table=w1, by_gain=by_gain, **blocks
  )
  plan.add('gather', source=hidden, table=w2, bias=w2_bias, **blocks, **end)
  plan.n_picks += 1
