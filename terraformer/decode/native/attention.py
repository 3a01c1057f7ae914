"""Describes attention and its projections to the native library.

Each kind of layer has functions here, chosen by the layer's type.

D d_model, S modules, W width of a module, C positions and E modules that a convolution sees, H heads, K head width.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from terraformer.decode.native.description import (
  WHOLE_ROW,
  ByExactType,
  Description,
  Kept,
  NoKernelError,
  Streams,
  dense,
  make_ready,
  multiplicative_layer,
)
from terraformer.decode.stored import MatrixView
from terraformer.layers.attention import Attention
from terraformer.layers.cross_attention import CrossAttention
from terraformer.layers.lsh_attention import LSHAttention
from terraformer.layers.modular_convolution import ModularConvolution
from terraformer.layers.separate_qkv import DenseProjection
from terraformer.layers.sparse_qkv import SparseProjection
from terraformer.native import layout
from terraformer.ops.lsh_hash import fixed_rotations


@ByExactType
def attend(layer: Any, to: Description, source: int, streams: Streams, of_caches: Callable[[Any], Any]) -> None:
  """Adds the operations for attention; `source` holds normalized vectors, and the result is added to the streams."""
  raise NoKernelError(type(layer).__name__)


@attend.register(Attention)
def _(layer: Attention, to: Description, source: int, streams: Streams, of_caches) -> None:
  n_heads, head_width = layer.head_shape
  q, k, v = project(layer.projection, to, source, lambda caches: of_caches(caches).projection)
  at = to.plan.page(to.types.cache, n_heads, head_width)
  to.keys.append(Kept(at, lambda caches: of_caches(caches).kv))
  columns = {'source': q, 'key': k, 'value': v, 'page_offset': at}
  _attend(to, layer, streams, columns, n_heads, head_width, of_caches)


@attend.register(LSHAttention)
def _(layer: LSHAttention, to: Description, source: int, streams: Streams, of_caches) -> None:
  n_heads, head_width = layer.head_shape
  q, _, v = project(layer.projection, to, source, lambda caches: of_caches(caches).projection)
  factors = layer.config.hashed_into(to.capacity)
  at = to.plan.page(to.types.cache, n_heads, head_width, by_record=bool(factors))
  (to.records if factors else to.keys).append(Kept(at, lambda caches: of_caches(caches).kv))
  columns = {'source': q, 'value': v, 'page_offset': at}
  if factors:
    columns |= _hash(to, layer, factors, lambda caches: of_caches(caches).recent)
    _attend(to, layer, streams, columns, n_heads, head_width, of_caches, 'attend_hashed')
    return
  columns |= {'key': q} if layer.config.is_plain(to.capacity) else {'shared_keys': 1}
  _attend(to, layer, streams, columns, n_heads, head_width, of_caches)


def _hash(to: Description, layer: LSHAttention, factors: tuple[int, ...], of_caches: Callable) -> dict[str, int]:
  """Returns the columns of attention that hashes into buckets, whose number is the product of the factors."""
  config, (n_heads, head_width) = layer.config, layer.head_shape
  n_rounds, n_slots, n_directions = config.n_rounds, config.window + 1, sum(factors) // 2
  # Layers share the directions. They are sampled when the plan is opened, not whenever it is described.
  name = f'directions of {config.seed}, {n_rounds}, {factors}'

  def directions():
    return fixed_rotations(config.seed, n_heads, head_width, n_rounds, factors).transpose(0, 2, 1, 3)

  at = to.plan.table(n_heads * n_rounds * math.prod(factors) * (n_slots + 1))
  to.tables.append(Kept(at, of_caches))
  return {
    'directions': to.constant(name, n_heads * n_rounds * n_directions * head_width, directions),
    'factors': to.constant(f'factors {factors}', len(factors), lambda: np.array(factors)),
    'rounds': n_rounds,
    'slots': n_slots,
    'table_offset': at,
  }


@attend.register(CrossAttention)
def _(layer: CrossAttention, to: Description, source: int, streams: Streams, of_caches) -> None:
  n_heads = layer.projection.n_heads
  head_width = to.d_model // n_heads
  of_projection = lambda caches: of_caches(caches).projection  # noqa: E731
  q, _, _ = project(layer.projection, to, source, of_projection, query_alone=True)
  at = to.plan.page(to.types.cache, n_heads, head_width, of_memory=True)
  to.memories.append(Kept(at, of_caches))
  columns = {'source': q, 'page_offset': at, 'of_memory': 1}
  _attend(to, layer, streams, columns, n_heads, head_width, of_caches)


def _attend(
  to, layer, streams: Streams, columns: dict, n_heads: int, head_width: int, of_caches, kind: str = 'attend'
) -> None:
  columns |= {'heads': n_heads, 'head_width': head_width, 'cache_type': layout.TYPES.index(to.types.cache)}
  if has_output(layer.projection):
    attended = to.buffer('attended', to.d_model, segment=WHOLE_ROW)
    to.plan.add(kind, target=attended, **columns)
    make_ready(to, attended)
    project_output(layer.projection, to, attended, streams.end, lambda caches: of_caches(caches).output)
  else:
    to.plan.add(kind, **columns, **streams.end)


@ByExactType
def project(
  layer: Any, to: Description, source: int, of_caches: Callable, query_alone: bool = False
) -> tuple[int, int, int]:
  """Adds the projections, and returns the buffers of queries, keys and values. Shared keys use the queries' buffer."""
  raise NoKernelError(type(layer).__name__)


@ByExactType
def has_output(layer: Any) -> bool:
  """Returns whether a projection follows the heads."""
  return True


@ByExactType
def project_output(layer: Any, to: Description, source: int, end: dict[str, int], of_caches: Callable) -> None:
  """Adds the projection that follows the heads; `end` holds the columns of its last operation."""
  raise NoKernelError(type(layer).__name__)


@project.register(DenseProjection)
def _(layer: DenseProjection, to: Description, source: int, of_caches, query_alone: bool = False):
  q, k, v = (to.buffer(name, to.d_model) for name in ('query', 'key', 'value'))
  parts = [(layer.query, q)] if query_alone else [(layer.query, q), (layer.key, k), (layer.value, v)]
  parts = [(part, target) for part, target in parts if part is not None]
  for part, target in parts:
    dense(to, part, source, target=target, meets=int(target == parts[-1][1]))
  return q, q if layer.key is None else k, v


@project_output.register(DenseProjection)
def _(layer: DenseProjection, to: Description, source: int, end: dict[str, int], of_caches) -> None:
  dense(to, layer.output, source, **end)


@project.register(SparseProjection)
def _(layer: SparseProjection, to: Description, source: int, of_caches, query_alone: bool = False):
  config, d = layer.config, to.d_model
  shared = to.buffer('shared', d)
  multiplicative_layer(to, layer.shared, source, target=shared)
  window = _remember(to, layer.query, config.n_modules, shared, lambda caches: of_caches(caches).query_key)
  q, k, v = (to.buffer(name, d) for name in ('query', 'key', 'value'))
  _convolve(to, layer.query, config.n_modules, window, target=q, meets=int(query_alone))
  if layer.key is not None and not query_alone:
    _convolve(to, layer.key, config.n_modules, window, target=k, meets=0)
  if not query_alone:
    columns = _value_windows(to, layer, window, shared, source, lambda caches: of_caches(caches).value)
    _convolve(to, layer.value, config.n_modules, -1, target=v, **columns)
  return q, q if layer.key is None else k, v


def _value_windows(to, layer: SparseProjection, window: int, shared: int, source: int, of_caches) -> dict[str, int]:
  """Returns the columns that define the input of the convolution of values."""
  config, d = layer.config, to.d_model
  _, n_seen, _, width = layer.query.kernel_CxExVxW.get_value().shape
  inner = n_seen // 2 * width  # number of zeros at the start of the queries' window
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
    seen = to.buffer('inputs seen', d, length, WHOLE_ROW)
    to.histories.append(Kept(at, inputs))
    to.plan.add('history', source=source, target=seen, state_offset=at)
    return {'source': window, 'offset': inner, 'second': seen, 'step': width}
  both, other = to.buffer('both seen', 2 * d, length, WHOLE_ROW), to.plan.state(length * d)
  to.histories.append(Kept(at, lambda caches: inputs(caches)[..., :d]))
  to.histories.append(Kept(other, lambda caches: inputs(caches)[..., d:]))
  to.plan.add('history', source=shared, target=both, state_offset=at)
  to.plan.add('history', source=source, target=both, offset=d, state_offset=other)
  return {'source': both, 'step': 2 * width}


def _batch_and_time(x_BxSxCxV: jax.Array) -> tuple[int, int]:
  return x_BxSxCxV.shape[0], x_BxSxCxV.shape[2]


def _remember(to: Description, convolution: ModularConvolution, n_modules: int, source: int, of_caches) -> int:
  """Returns the buffer of the positions that a convolution sees, with zeros next to the outermost modules."""
  length, n_seen, width, _ = convolution.kernel_CxExVxW.get_value().shape
  padded = (n_modules + n_seen - 1) * width
  window, at = to.buffer('seen', padded, length, WHOLE_ROW), to.plan.state(length * to.d_model)

  def of_modules(caches):
    seen_BxSxCxV = of_caches(caches)[:, :, :, n_seen // 2]
    return seen_BxSxCxV.swapaxes(1, 2).reshape(*_batch_and_time(seen_BxSxCxV), to.d_model)

  to.histories.append(Kept(at, of_modules))
  to.plan.add('history', source=source, target=window, offset=n_seen // 2 * width, state_offset=at)
  return window


def _convolve(to: Description, convolution: ModularConvolution, n_modules: int, window: int, **columns: int) -> None:
  """Adds a convolution; its kernel is one matrix over a module's inputs, with a stretch per position and source."""
  _, n_seen, width_in, width = convolution.kernel_CxExVxW.get_value().shape
  stretch = n_seen * width_in // (2 if columns.get('second', -1) >= 0 else 1)
  matrix = to.matrix(convolution.kernel_CxExVxW, MatrixView((0, 1, 2, 3), 3), stretch)
  bias = to.vector(convolution.bias_W, lambda bias_W: np.tile(bias_W, n_modules), n_modules * width)
  columns = {'source': window, 'step': width_in, 'rows': n_modules} | columns
  to.plan.add('dense', matrix=matrix, bias=bias, **columns)


@has_output.register(SparseProjection)
def _(layer: SparseProjection) -> bool:
  return layer.output is not None or layer.output_convolution is not None


@project_output.register(SparseProjection)
def _(layer: SparseProjection, to: Description, source: int, end: dict[str, int], of_caches) -> None:
  convolution = layer.output_convolution
  mixed = to.buffer('mixed', to.d_model)
  if layer.output is not None:
    columns = end if convolution is None else {'target': mixed}
    multiplicative_layer(to, layer.output, source, **columns)
    source = mixed
  if convolution is not None:
    n_modules = layer.config.n_modules
    window = _remember(to, convolution, n_modules, source, of_caches)
    _convolve(to, convolution, n_modules, window, **end)
