"""Describes a model's decoding step as a plan, from a token's vector to its logits."""

import functools
from collections.abc import Callable
from typing import Any

from terraformer.decode.native.attention import attend
from terraformer.decode.native.description import (
  WHOLE_ROW,
  ByExactType,
  Description,
  NoKernelError,
  Streams,
  Types,
  dense,
  make_ready,
  multiplicative,
  normalize,
)
from terraformer.decode.native.feed_forward import feed_forward, recur
from terraformer.decode.stored import MatrixView
from terraformer.layers.dense import Dense
from terraformer.layers.output import LowRankOutput, SparseOutput
from terraformer.models.base import Model
from terraformer.models.encoder_decoder import EncoderDecoder
from terraformer.models.language_model import LanguageModel
from terraformer.models.terraformer import Terraformer
from terraformer.native.plan import INPUT, OUTPUT, Plan


def describe(model: Model, types: Types, capacity: int = 0) -> Description:
  """Returns the description of a layerwise model's step.

  Args:
    model: the model; its parameters may be abstract.
    types: number types of weights and cache.
    capacity: capacity of the caches. It matters only for LSH attention, which sees the whole of a small cache.
  """
  plan = Plan(model.config.d_model, model.config.vocab_size)
  to = Description(plan, types, model, capacity)
  if type(model) not in (LanguageModel, EncoderDecoder, Terraformer):
    to.missing.append(type(model).__name__)
  residual = model.decoder.residual
  buffers = tuple(to.buffer(f'stream {i}', to.d_model) for i in range(2 if residual.two_streams else 1))
  streams = Streams(buffers, residual.exact)
  for buffer in buffers:
    plan.add('mix', source=INPUT, second=INPUT, target=buffer)
  starts = [run.start for run in model.decoder.layer_runs()]
  for number, block in enumerate(model.decoder.blocks):
    if number and number in starts:
      _forget(to, model.decoder.forgets[starts.index(number) - 1], streams)
    for index, sublayer in enumerate(block.sublayers):
      of_caches = functools.partial(lambda number, index, caches: caches[number][index], number, index)
      _noting_what_is_missing(to, _sublayer, sublayer, streams, of_caches)
      streams = streams.turned()
  _noting_what_is_missing(to, _end, model, streams)
  return to


def _noting_what_is_missing(to: Description, add: Callable, *arguments: Any) -> None:
  try:
    add(to, *arguments)
  except NoKernelError as error:
    to.missing.append(str(error))


def _forget(to: Description, layer: Dense, streams: Streams) -> None:
  """Replaces all streams by their mean, passed through a dense layer."""
  mean = to.buffer('normed', to.d_model, segment=WHOLE_ROW)
  to.plan.add('mix', source=streams.buffers[0], second=streams.buffers[-1], target=mean)
  make_ready(to, mean)
  dense(to, layer, mean, target=streams.buffers[0], to_grid=int(streams.to_grid))
  for buffer in streams.buffers[1:]:
    to.plan.add('mix', source=streams.buffers[0], second=streams.buffers[0], target=buffer)


def _sublayer(to: Description, sublayer: Any, streams: Streams, of_caches: Callable) -> None:
  """Adds a normalization and the layer after it."""
  normed = to.buffer('normed', to.d_model, segment=WHOLE_ROW)
  normalize(to, sublayer.norm, streams.buffers[-1:], normed)
  if hasattr(sublayer, 'attention'):
    attend(sublayer.attention, to, normed, streams, of_caches)
    return
  if sublayer.recurrence is None:
    feed_forward(sublayer.feed_forward, to, normed, streams.end)
    return
  # Both branches are summed before they are added to a stream, so that the result is rounded to the grid once.
  result = to.buffer('result', to.d_model)
  feed_forward(sublayer.feed_forward, to, normed, {'target': result})
  recur(to, sublayer.recurrence, streams, {**streams.end, 'addend': result}, of_caches)


def _end(to: Description, model: Model, streams: Streams) -> None:
  """Adds the last normalization and the logits."""
  normed = to.buffer('normed', to.d_model, segment=WHOLE_ROW)
  normalize(to, model.norm, streams.buffers, normed)
  output(model.output, to, normed)


@ByExactType
def output(layer: Any, to: Description, source: int) -> None:
  """Adds the output layer, from normalized vectors to logits."""
  raise NoKernelError(type(layer).__name__)


@output.register(Dense)
def _(layer: Dense, to: Description, source: int) -> None:
  dense(to, layer, source, target=OUTPUT)


@output.register(LowRankOutput)
def _(layer: LowRankOutput, to: Description, source: int) -> None:
  low = to.buffer('rank', layer.contract.kernel_DxF.get_value().shape[1], segment=WHOLE_ROW)
  dense(to, layer.contract, source, target=low)
  make_ready(to, low)
  dense(to, layer.expand, low, target=OUTPUT)


@output.register(SparseOutput)
def _(layer: SparseOutput, to: Description, source: int) -> None:
  parameters = layer.gating_SxD, layer.projection_WxD, layer.bias_SxW
  multiplicative(to, source, *parameters, MatrixView((1, 0), 1), target=OUTPUT)
