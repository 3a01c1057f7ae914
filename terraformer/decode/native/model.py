"""A model's decoding step as a plan: from a token's vector to its logits."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from terraformer.decode.native.attention import attend
from terraformer.decode.native.description import (
  WHOLE_ROW,
  Description,
  NoKernelError,
  Streams,
  Types,
  dense,
  make_ready,
  multiplicative,
  normalise,
)
from terraformer.decode.native.feed_forward import feed_forward, recur
from terraformer.layers.dense import Dense
from terraformer.layers.output import LowRankOutput, SparseOutput
from terraformer.models.base import Model
from terraformer.native.plan import INPUT, OUTPUT, Plan


def describe(model: Model, types: Types) -> Description:
  """The step of a model whose parameters are arrays, from a token's vector to its logits.

  Args:
    model: unrolled.
    types: of weights and cache.

  Raises:
    NoKernelError: if one of its layers has none.
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
  normed = to.buffer('normed', to.d_model, segment=WHOLE_ROW)
  normalise(to, model.norm, 'norm', streams.buffers, normed)
  output(model.output, to, 'output', normed)
  return to


def _forget(to: Description, layer: Dense, path: str, streams: Streams) -> None:
  """The mean of the streams through a dense layer, of which both begin anew."""
  mean = to.buffer('normed', to.d_model, segment=WHOLE_ROW)
  to.plan.add('mix', source=streams.buffers[0], second=streams.buffers[-1], target=mean)
  make_ready(to, mean)
  dense(to, layer, path, mean, target=streams.buffers[0], to_grid=int(streams.to_grid))
  for buffer in streams.buffers[1:]:
    to.plan.add('mix', source=streams.buffers[0], second=streams.buffers[0], target=buffer)


def _sublayer(to: Description, sublayer: Any, path: str, streams: Streams, of_caches: Callable) -> None:
  """A normalisation, and what follows it."""
  normed = to.buffer('normed', to.d_model, segment=WHOLE_ROW)
  normalise(to, sublayer.norm, f'{path}.norm', streams.buffers[-1:], normed)
  if hasattr(sublayer, 'attention'):
    attend(sublayer.attention, to, f'{path}.attention', normed, streams, of_caches)
    return
  if sublayer.recurrence is None:
    feed_forward(sublayer.feed_forward, to, f'{path}.feed_forward', normed, streams.end)
    return
  # What both branches give is one result: on a grid it is rounded once.
  result = to.buffer('result', to.d_model)
  feed_forward(sublayer.feed_forward, to, f'{path}.feed_forward', normed, {'target': result})
  recur(to, sublayer.recurrence, f'{path}.recurrence', streams, {**streams.end, 'addend': result}, of_caches)


@functools.singledispatch
def output(layer: Any, to: Description, path: str, source: int) -> None:
  """From the normalised vectors to logits."""
  raise NoKernelError(type(layer).__name__)


@output.register
def _(layer: Dense, to: Description, path: str, source: int) -> None:
  dense(to, layer, path, source, target=OUTPUT)


@output.register
def _(layer: LowRankOutput, to: Description, path: str, source: int) -> None:
  low = to.buffer('rank', layer.contract.kernel_DxF[...].shape[1], segment=WHOLE_ROW)
  dense(to, layer.contract, f'{path}.contract', source, target=low)
  make_ready(to, low)
  dense(to, layer.expand, f'{path}.expand', low, target=OUTPUT)


@output.register
def _(layer: SparseOutput, to: Description, path: str, source: int) -> None:
  projection = lambda: np.asarray(layer.projection_WxD[...]).T  # noqa: E731
  multiplicative(to, path, source, layer.gating_SxD, projection, layer.bias_SxW, target=OUTPUT)
