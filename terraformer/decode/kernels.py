"""What the native library is told of a model: its decoding step as a plan of operations.

Each kind of layer has its function here, which `describe` finds by the layer's type; what has none raises `NoKernel`.

D d_model, S modules, W width of a module, C positions and E modules that a convolution sees, H heads, K head width, U
width of the recurrence, M blocks, N units a block, R controller rank.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from terraformer.layers.attention import Attention
from terraformer.layers.cross_attention import CrossAttention
from terraformer.layers.dense import Dense
from terraformer.layers.dense_ff import DenseFF
from terraformer.layers.lsh_attention import LSHAttention
from terraformer.layers.modular_convolution import ModularConvolution
from terraformer.layers.multiplicative import MultiplicativeDense
from terraformer.layers.norm import LayerNorm, RMSNorm
from terraformer.layers.output import LowRankOutput, SparseOutput
from terraformer.layers.separate_qkv import DenseProjection
from terraformer.layers.sparse_ff import SparseFF
from terraformer.layers.sparse_qkv import SparseProjection
from terraformer.models.base import Model
from terraformer.native import layout
from terraformer.native.plan import INPUT, OUTPUT, Plan

# Buffers of the 16-bit numbers beside weights of 8 bits.
_WHOLE_ROW = -1
_ALL_PLACES = 2**31 - 1


class NoKernel(Exception):
  """A layer that the library has no operations for, in words that follow `the native engine has no kernel for`."""


@dataclasses.dataclass(frozen=True)
class Types:
  """Of numbers, each of `layout.TYPES`.

  Attributes:
    weights: of matrices and picked rows.
    cache: of keys and values.
  """

  weights: str = 'float32'
  cache: str = 'float32'

  @property
  def small(self) -> str:
    """Of what is too small to matter, and would need activations in 16 bits of its own."""
    return 'float32' if self.weights == 'float32' else 'bfloat16'


@dataclasses.dataclass(frozen=True)
class Kept:
  """Something that a step finds in the cache, and where the library has it.

  Attributes:
    at: where, in a page or in the state.
    get: takes it from the model's own caches of all layers.
  """

  at: int
  get: Callable[[Any], Any]


class Description:
  """A plan that is being written, and what of the model's caches goes where.

  Attributes:
    plan: the plan.
    types: of weights and cache.
    keys: attention's `KVCache`s in the pages.
    memories: caches of cross-attention in the memory's pages.
    histories: what convolutions keep, BxCxD without the last position.
    states: of recurrences, BxU.
  """

  def __init__(self, plan: Plan, types: Types, d_model: int):
    self.plan, self.types = plan, types
    self.keys: list[Kept] = []
    self.memories: list[Kept] = []
    self.histories: list[Kept] = []
    self.states: list[Kept] = []
    self._buffers: dict[tuple, int] = {}
    self.d_model = d_model

  def buffer(self, name: str, width: int, rows: int = 1, segment: int = 0) -> int:
    """The buffer of a name and shape, which layers share; `segment` counts beside weights in 8 bits alone."""
    segment = 0 if self.types.weights != 'int8' else width if segment == _WHOLE_ROW else min(segment, width)
    key = name, width, rows, segment
    if key not in self._buffers:
      self._buffers[key] = self.plan.buffer(width, rows, segment)
    return self._buffers[key]

  def matrix(self, path: str, get: Callable[[], Any], shape: tuple[int, int], stretch: int = 0, small: bool = False):
    """A matrix, in stretches of their usual length unless said otherwise."""
    kind = self.types.small if small else self.types.weights
    packed = layout.Matrix(kind, *shape, stretch or layout.stretch_of(shape[0]))
    return self.plan.matrix(path, packed, lambda: np.asarray(get(), np.float32))

  def vector(self, path: str, size: int, get: Callable[[], Any]) -> int:
    """Numbers in float32."""
    return self.plan.vector(path, size, lambda: np.asarray(get(), np.float32))


@dataclasses.dataclass(frozen=True)
class Streams:
  """The residual streams: buffers, the last of which a sublayer reads and the first of which it adds to."""

  buffers: tuple[int, ...]
  to_grid: bool

  def turned(self) -> 'Streams':
    """After a sublayer."""
    return dataclasses.replace(self, buffers=(*self.buffers[1:], self.buffers[0]))

  @property
  def end(self) -> dict[str, int]:
    """Columns of the operation that adds a sublayer's result to the streams."""
    return {'target': self.buffers[0], 'adds': 1, 'to_grid': int(self.to_grid)}


def describe(model: Model, types: Types) -> Description:
  """The step of a model whose parameters are arrays, from a token's vector to its logits.

  Args:
    model: unrolled.
    types: of weights and cache.

  Raises:
    NoKernel: if one of its layers has none.
  """
  plan = Plan(model.config.d_model, model.config.vocab_size)
  to = Description(plan, types, model.config.d_model)
  residual = model.decoder.residual
  buffers = tuple(to.buffer(f'stream {i}', to.d_model) for i in range(2 if residual.two_streams else 1))
  streams = Streams(buffers, residual.exact)
  for buffer in buffers:
    plan.add('mix', source=INPUT, second=INPUT, target=buffer)
  starts = [segment.start for segment in model.decoder.segments()]
  for number, block in enumerate(model.decoder.blocks):
    if number and number in starts:
      _forget(to, model.decoder.forgets[starts.index(number) - 1], f'forgets.{number}', streams)
    for place, sublayer in enumerate(block.sublayers):
      of_caches = functools.partial(lambda number, place, caches: caches[number][place], number, place)
      _sublayer(to, sublayer, f'{number}.{place}', streams, of_caches)
      streams = streams.turned()
  normed = to.buffer('normed', to.d_model, segment=_WHOLE_ROW)
  _norm(to, model.norm, 'norm', streams.buffers, normed)
  output(model.output, to, 'output', normed)
  return to


def _norm(to: Description, layer: LayerNorm | RMSNorm, path: str, sources: tuple[int, ...], target: int) -> None:
  """Of one stream, or of the mean of two."""
  if not isinstance(layer, LayerNorm | RMSNorm):
    raise NoKernel(type(layer).__name__)
  d = to.d_model
  columns = {'scale': to.vector(f'{path}.scale', d, lambda: layer.scale_D[...])}
  if isinstance(layer, LayerNorm):
    columns['bias'] = to.vector(f'{path}.bias', d, lambda: layer.bias_D[...])
  second = sources[1] if len(sources) > 1 else -1
  root_mean_square = int(isinstance(layer, RMSNorm))
  to.plan.add(
    'norm', source=sources[0], second=second, target=target, root_mean_square=root_mean_square, **columns
  )


def _forget(to: Description, layer: Dense, path: str, streams: Streams) -> None:
  """The mean of the streams through a dense layer, of which both begin anew."""
  mean = to.buffer('normed', to.d_model, segment=_WHOLE_ROW)
  to.plan.add('mix', source=streams.buffers[0], second=streams.buffers[-1], target=mean)
  _ready(to, mean)
  dense(to, layer, path, mean, target=streams.buffers[0], to_grid=int(streams.to_grid))
  for buffer in streams.buffers[1:]:
    to.plan.add('mix', source=streams.buffers[0], second=streams.buffers[0], target=buffer)


def _ready(to: Description, buffer: int) -> None:
  """Rounds what an operation has not rounded itself, where a matrix in 8 bits reads it."""
  if to.types.weights == 'int8':
    to.plan.add('quantise', target=buffer)


def dense(to: Description, layer: Dense, path: str, source: int, small: bool = False, **columns: int) -> None:
  """y = x kernel + bias, with what may follow a product."""
  shape = layer.kernel_DxF[...].shape
  matrix = to.matrix(f'{path}.kernel', lambda: layer.kernel_DxF[...], shape, small=small)
  if layer.bias_F is not None:
    columns['bias'] = to.vector(f'{path}.bias', shape[1], lambda: layer.bias_F[...])
  to.plan.add('dense', source=source, matrix=matrix, **columns)


def multiplicative(
  to: Description, path: str, source: int, gating: Any, projection: Callable[[], Any], bias: Any, **columns: int
) -> None:
  """y[s, w] = sum_d x[d] gating[s, d] projection[d, w] + bias[s, w]."""
  (n_modules, d_in), width = gating[...].shape, bias[...].shape[1]
  stretch = layout.stretch_of(d_in)
  gated = to.buffer('gated', d_in, n_modules, stretch)
  table = to.plan.rows(f'{path}.gating', to.types.small, (n_modules, d_in), lambda: np.asarray(gating[...], np.float32))
  matrix = to.matrix(f'{path}.projection', projection, (d_in, width))
  columns['bias'] = to.vector(f'{path}.bias', n_modules * width, lambda: bias[...])
  to.plan.add('gate', source=source, target=gated, table=table, step=stretch)
  to.plan.add('dense', source=gated, matrix=matrix, rows=n_modules, **columns)


def _multiplicative_layer(to: Description, layer: MultiplicativeDense, path: str, source: int, **columns: int) -> None:
  multiplicative(to, path, source, layer.gating_SxD, lambda: layer.projection_DxW[...], layer.bias_SxW, **columns)


# --- Sublayers -------------------------------------------------------------------------------------------------------


def _sublayer(to: Description, sublayer: Any, path: str, streams: Streams, of_caches: Callable) -> None:
  """A normalisation, and what follows it."""
  normed = to.buffer('normed', to.d_model, segment=_WHOLE_ROW)
  _norm(to, sublayer.norm, f'{path}.norm', streams.buffers[-1:], normed)
  if hasattr(sublayer, 'attention'):
    attend(sublayer.attention, to, f'{path}.attention', normed, streams, of_caches)
    return
  if sublayer.recurrence is None:
    feed_forward(sublayer.feed_forward, to, f'{path}.feed_forward', normed, streams.end)
    return
  # What both branches give is one result: on a grid it is rounded once.
  result = to.buffer('result', to.d_model)
  feed_forward(sublayer.feed_forward, to, f'{path}.feed_forward', normed, {'target': result})
  _recur(to, sublayer.recurrence, f'{path}.recurrence', streams, {**streams.end, 'addend': result}, of_caches)


def _recur(to: Description, branch: Any, path: str, streams: Streams, end: dict, of_caches: Callable) -> None:
  width = branch.sru.config.width
  normed = to.buffer('normed', to.d_model, segment=_WHOLE_ROW)
  low, gates, read = to.buffer('low', width), to.buffer('gates', 3 * width), to.buffer('read', width)
  _norm(to, branch.norm, f'{path}.norm', streams.buffers[-1:], normed)
  dense(to, branch.contract, f'{path}.contract', normed, target=low)
  dense(to, branch.sru.gates, f'{path}.gates', low, small=True, target=gates)
  at = to.plan.state(width)
  to.states.append(Kept(at, of_caches))
  to.plan.add('recur', source=low, second=gates, target=read, state_offset=at, tanh=int(branch.sru.config.tanh))
  dense(to, branch.expand, f'{path}.expand', read, small=True, **end)


@functools.singledispatch
def feed_forward(layer: Any, to: Description, path: str, source: int, end: dict[str, int]) -> None:
  """A feed-forward block; `end` are the columns of its last operation."""
  raise NoKernel(type(layer).__name__)


@feed_forward.register
def _(layer: DenseFF, to: Description, path: str, source: int, end: dict[str, int]) -> None:
  hidden = to.buffer('hidden', layer.expand.kernel_DxF[...].shape[1], segment=_WHOLE_ROW)
  dense(to, layer.expand, f'{path}.expand', source, target=hidden, relu=1)
  _ready(to, hidden)
  dense(to, layer.contract, f'{path}.contract', hidden, **end)


@feed_forward.register
def _(layer: SparseFF, to: Description, path: str, source: int, end: dict[str, int]) -> None:
  config, plan, d = layer.config, to.plan, to.d_model
  m, n, r = config.n_blocks, config.block_size, config.rank
  padding = (0, 0), (0, -n % layout.PANEL)  # a block begins with a panel
  padded = n + padding[1][1]
  low, hidden = to.buffer('controller', r, segment=_WHOLE_ROW), to.buffer('units', m)
  first = to.matrix(f'{path}.controller1', lambda: layer.controller_DxR[...], (d, r))
  second = to.matrix(
    f'{path}.controller2',
    lambda: np.pad(np.asarray(layer.controller_RxMxN[...]), ((0, 0), *padding)).reshape(r, -1),
    (r, m * padded),
  )
  bias = to.vector(f'{path}.controller_bias', m * padded, lambda: np.pad(layer.controller_bias_MxN[...], padding))
  w1 = plan.rows(f'{path}.w1', to.types.weights, (m * n, d), lambda: layer.w1_MxNxD[...].reshape(m * n, d))
  w2 = plan.rows(f'{path}.w2', to.types.weights, (m * n, d), lambda: layer.w2_MxNxD[...].reshape(m * n, d))
  w2_bias = to.vector(f'{path}.bias', d, lambda: layer.bias_D[...])
  blocks = {'n_blocks': m, 'block': n, 'pick': plan.n_picks}
  plan.add('dense', source=source, target=low, matrix=first)
  if layout.stretch_of(d) == d:  # else it is added up from stretches, and rounded there
    _ready(to, low)
  by_gain = int(config.multiply_by_controller_output)
  plan.add(
    'pick', source=low, second=source, target=hidden, matrix=second, bias=bias, table=w1, by_gain=by_gain, **blocks
  )
  plan.add('gather', source=hidden, table=w2, bias=w2_bias, **blocks, **end)
  plan.n_picks += 1


# --- Attention -------------------------------------------------------------------------------------------------------


@functools.singledispatch
def attend(
  layer: Any, to: Description, path: str, source: int, streams: Streams, of_caches: Callable[[Any], Any]
) -> None:
  """Attention of the vectors in `source`, which are normalised, added to the streams."""
  raise NoKernel(type(layer).__name__)


@attend.register
def _(layer: Attention, to: Description, path: str, source: int, streams: Streams, of_caches) -> None:
  n_heads, head_width = layer.head_shape
  q, k, v = project(layer.projection, to, path, source, lambda caches: of_caches(caches).projection)
  at = to.plan.page(to.types.cache, n_heads, head_width)
  to.keys.append(Kept(at, lambda caches: of_caches(caches).kv))
  columns = {'source': q, 'key': k, 'value': v, 'page_offset': at}
  _attend(to, layer, path, streams, columns, n_heads, head_width, of_caches)


@attend.register
def _(layer: LSHAttention, to: Description, path: str, source: int, streams: Streams, of_caches) -> None:
  if layer.config.full_below < _ALL_PLACES:
    raise NoKernel('LSHAttention where it hashes')
  n_heads, head_width = layer.head_shape
  q, _, v = project(layer.projection, to, path, source, lambda caches: of_caches(caches).projection)
  at = to.plan.page(to.types.cache, n_heads, head_width)
  to.keys.append(Kept(at, lambda caches: of_caches(caches).kv))
  columns = {'source': q, 'value': v, 'page_offset': at, 'shared_keys': 1}
  _attend(to, layer, path, streams, columns, n_heads, head_width, of_caches)


@attend.register
def _(layer: CrossAttention, to: Description, path: str, source: int, streams: Streams, of_caches) -> None:
  n_heads = layer.projection.n_heads
  head_width = to.d_model // n_heads
  of_projection = lambda caches: of_caches(caches).projection  # noqa: E731
  q, _, _ = project(layer.projection, to, path, source, of_projection, query_alone=True)
  at = to.plan.page(to.types.cache, n_heads, head_width, of_memory=True)
  to.memories.append(Kept(at, of_caches))
  columns = {'source': q, 'page_offset': at, 'of_memory': 1}
  _attend(to, layer, path, streams, columns, n_heads, head_width, of_caches)


def _attend(to, layer, path, streams: Streams, columns: dict, n_heads: int, head_width: int, of_caches) -> None:
  columns |= {'heads': n_heads, 'head_width': head_width, 'cache_type': layout.TYPES.index(to.types.cache)}
  if needs_merge(layer.projection):
    attended = to.buffer('attended', to.d_model, segment=_WHOLE_ROW)
    to.plan.add('attend', target=attended, **columns)
    _ready(to, attended)
    merge(layer.projection, to, path, attended, streams.end, lambda caches: of_caches(caches).merge)
  else:
    to.plan.add('attend', **columns, **streams.end)


@functools.singledispatch
def project(
  layer: Any, to: Description, path: str, source: int, of_caches: Callable, query_alone: bool = False
) -> tuple[int, int, int]:
  """Buffers of queries, keys and values; the same for both first ones where keys are queries."""
  raise NoKernel(type(layer).__name__)


@functools.singledispatch
def needs_merge(layer: Any) -> bool:
  """Whether anything follows the heads."""
  return True


@functools.singledispatch
def merge(layer: Any, to: Description, path: str, source: int, end: dict[str, int], of_caches: Callable) -> None:
  """What follows the heads."""
  raise NoKernel(type(layer).__name__)


@project.register
def _(layer: DenseProjection, to: Description, path: str, source: int, of_caches, query_alone: bool = False):
  q, k, v = (to.buffer(name, to.d_model) for name in ('query', 'key', 'value'))
  parts = [(layer.query, 'query', q)]
  if not query_alone:
    parts += [(layer.key, 'key', k), (layer.value, 'value', v)]
  parts = [part for part in parts if part[0] is not None]
  for part, name, target in parts:
    dense(to, part, f'{path}.{name}', source, target=target, meets=int(target == parts[-1][2]))
  return q, q if layer.key is None else k, v


@merge.register
def _(layer: DenseProjection, to: Description, path: str, source: int, end: dict[str, int], of_caches) -> None:
  dense(to, layer.output, f'{path}.output', source, **end)


@project.register
def _(layer: SparseProjection, to: Description, path: str, source: int, of_caches, query_alone: bool = False):
  config, plan, d = layer.config, to.plan, to.d_model
  shared = to.buffer('shared', d)
  _multiplicative_layer(to, layer.shared, f'{path}.shared', source, target=shared)
  window = _remember(to, layer.query, config.n_modules, shared, lambda caches: of_caches(caches).query_key)
  q, k, v = (to.buffer(name, d) for name in ('query', 'key', 'value'))
  convolutions = [] if query_alone or layer.key is None else [(layer.key, 'key', k)]
  _convolve(to, layer.query, f'{path}.query', config.n_modules, window, target=q, meets=int(query_alone))
  for convolution, name, target in convolutions:
    _convolve(to, convolution, f'{path}.{name}', config.n_modules, window, target=target, meets=0)
  if not query_alone:
    columns = _value_windows(to, layer, window, shared, source, lambda caches: of_caches(caches).value)
    _convolve(to, layer.value, f'{path}.value', config.n_modules, -1, target=v, **columns)
  return q, q if layer.key is None else k, v


def _value_windows(to, layer: SparseProjection, window: int, shared: int, source: int, of_caches) -> dict[str, int]:
  """Columns that say what the convolution of values reads."""
  config, d = layer.config, to.d_model
  _, n_seen, _, width = layer.query.kernel_CxExVxW[...].shape
  inner = n_seen // 2 * width  # the window of queries begins with so many zeros
  if not config.value_reads_input:
    return {'source': window, 'offset': inner, 'step': width}
  length = config.length_kernel

  def inputs(caches):  # BxSx(C-1)xVx2 halves
    value_BxSxCxV = of_caches(caches)[:, :, :, 0]
    if config.value_by_module:
      return value_BxSxCxV[..., width:].swapaxes(1, 2).reshape(*_batch_and_time(value_BxSxCxV), d)
    return value_BxSxCxV.swapaxes(1, 2).reshape(*_batch_and_time(value_BxSxCxV), 2 * d)

  at = to.plan.state(length * d)
  if config.value_by_module:
    seen = to.buffer('inputs seen', d, length, _WHOLE_ROW)
    to.histories.append(Kept(at, inputs))
    to.plan.add('history', source=source, target=seen, state_offset=at)
    return {'source': window, 'offset': inner, 'second': seen, 'step': width}
  both, other = to.buffer('both seen', 2 * d, length, _WHOLE_ROW), to.plan.state(length * d)
  to.histories.append(Kept(at, lambda caches: inputs(caches)[..., :d]))
  to.histories.append(Kept(other, lambda caches: inputs(caches)[..., d:]))
  to.plan.add('history', source=shared, target=both, state_offset=at)
  to.plan.add('history', source=source, target=both, offset=d, state_offset=other)
  return {'source': both, 'step': 2 * width}


def _batch_and_time(x_BxSxCxV: jax.Array) -> tuple[int, int]:
  return x_BxSxCxV.shape[0], x_BxSxCxV.shape[2]


def _remember(to: Description, convolution: ModularConvolution, n_modules: int, source: int, of_caches) -> int:
  """The buffer in which the positions that a convolution sees stand, with zeros beside the outermost modules."""
  length, n_seen, width, _ = convolution.kernel_CxExVxW[...].shape
  padded = (n_modules + n_seen - 1) * width
  window, at = to.buffer('seen', padded, length, _WHOLE_ROW), to.plan.state(length * to.d_model)

  def of_modules(caches):
    seen_BxSxCxV = of_caches(caches)[:, :, :, n_seen // 2]
    return seen_BxSxCxV.swapaxes(1, 2).reshape(*_batch_and_time(seen_BxSxCxV), to.d_model)

  to.histories.append(Kept(at, of_modules))
  to.plan.add('history', source=source, target=window, offset=n_seen // 2 * width, state_offset=at)
  return window


def _convolve(
  to: Description, convolution: ModularConvolution, path: str, n_modules: int, window: int, **columns: int
) -> None:
  """A convolution, whose kernel is one matrix over all that a module sees: a stretch a position and source."""
  length, n_seen, width_in, width = shape = convolution.kernel_CxExVxW[...].shape
  stretch = n_seen * width_in // (2 if columns.get('second', -1) >= 0 else 1)
  matrix = to.matrix(
    f'{path}.kernel',
    lambda: np.asarray(convolution.kernel_CxExVxW[...]).reshape(-1, shape[-1]),
    (length * n_seen * width_in, width),
    stretch,
  )
  bias = to.vector(f'{path}.bias', n_modules * width, lambda: np.tile(convolution.bias_W[...], n_modules))
  columns = {'source': window, 'step': width_in, 'rows': n_modules} | columns
  to.plan.add('dense', matrix=matrix, bias=bias, **columns)


@needs_merge.register
def _(layer: SparseProjection) -> bool:
  return layer.output is not None or layer.output_convolution is not None


@merge.register
def _(layer: SparseProjection, to: Description, path: str, source: int, end: dict[str, int], of_caches) -> None:
  convolution = layer.output_convolution
  mixed = to.buffer('mixed', to.d_model)
  if layer.output is not None:
    columns = end if convolution is None else {'target': mixed}
    _multiplicative_layer(to, layer.output, f'{path}.output', source, **columns)
    source = mixed
  if convolution is not None:
    n_modules = layer.config.n_modules
    window = _remember(to, convolution, n_modules, source, of_caches)
    _convolve(to, convolution, f'{path}.output_convolution', n_modules, window, **end)


# --- Output ----------------------------------------------------------------------------------------------------------


@functools.singledispatch
def output(layer: Any, to: Description, path: str, source: int) -> None:
  """From the normalised vectors to logits."""
  raise NoKernel(type(layer).__name__)


@output.register
def _(layer: Dense, to: Description, path: str, source: int) -> None:
  dense(to, layer, path, source, target=OUTPUT)


@output.register
def _(layer: LowRankOutput, to: Description, path: str, source: int) -> None:
  low = to.buffer('rank', layer.contract.kernel_DxF[...].shape[1], segment=_WHOLE_ROW)
  dense(to, layer.contract, f'{path}.contract', source, target=low)
  _ready(to, low)
  dense(to, layer.expand, f'{path}.expand', low, target=OUTPUT)


@output.register
def _(layer: SparseOutput, to: Description, path: str, source: int) -> None:
  projection = lambda: np.asarray(layer.projection_WxD[...]).T  # noqa: E731
  multiplicative(to, path, source, layer.gating_SxD, projection, layer.bias_SxW, target=OUTPUT)
