"""The order of the entries of a Terraformer's checkpoint.

D d_model, V vocabulary, P positions, L modules of the output layer.
"""

import functools
from collections.abc import Callable, Generator, Sequence

import numpy as np

from terraformer.config import (
  AxialPositionsConfig,
  DenseOutputConfig,
  FixedBasePositionsConfig,
  LowRankOutputConfig,
  RMSNormConfig,
  SparseOutputConfig,
  TablePositionsConfig,
)
from terraformer.trax.architecture import Architecture
from terraformer.trax.parts import Part, dense, feed_forward, norm, product

# What may come next, the likeliest first; whoever reads the file answers with the one that came and its shape.
Layout = Generator[list[Part], tuple[Part, tuple[int, ...]], None]
# The same of one table of positions, which returns the number of positions if the file says it.
Positions = Generator[list[Part], tuple[Part, tuple[int, ...]], int | None]


def layout(architecture: Architecture) -> Layout:
  """Yields the entries of a file one by one.

  Sizes that the configuration does not state are those of the entry that came.
  """
  model, d_model = architecture.model, architecture.model.d_model
  n_ids = architecture.vocab_size
  _, (n_ids, _) = yield [Part('embedding', (n_ids, d_model), 'embedding.table_VxD')]
  positions = functools.partial(_POSITIONS[type(model.positions)], model.positions, d_model)
  n_positions = yield from positions('encoder', [], None)
  # The memory-efficient trainer stores the decoder's embedding, which is the same, once more.
  again = Part('embedding_again', (n_ids, d_model), '', is_copy=True)
  yield from positions('decoder', [again], n_positions)
  for layer in range(model.n_encoder_layers):
    yield from _block(architecture, 'encoder', layer, 1)
  centered = not isinstance(model.output_norm or model.decoder.norm, RMSNormConfig)
  if model.merge_encoder:
    yield from _each(dense('encoder/final_dense', 'merge', d_model, d_model))
    yield from _each(norm('encoder/final_ln', 'merge_norm', d_model, centered))
  for layer in range(model.n_decoder_layers):
    yield from _block(architecture, 'decoder', layer, model.n_decoder_attentions)
  yield from _each(norm('final_ln', 'norm', d_model, centered))
  yield from _each(_output(architecture, n_ids))


def _each(parts: list[Part]) -> Layout:
  for part in parts:
    yield [part]


def _block(architecture: Architecture, stack: str, layer: int, n_attentions: int) -> Layout:
  block = architecture.model.blocks[stack]
  theirs, ours = f'{stack}/block{layer}', f'{stack}.blocks.{layer}'
  centered = not isinstance(block.norm, RMSNormConfig)
  for index in range(n_attentions):
    inside = f'{theirs}/attn{index if stack == "decoder" else ""}'
    yield from _each(norm(f'{inside}/ln', f'{ours}.attentions.{index}.norm', block.d_model, centered))
    yield from _each(architecture.attention[stack].parts(inside, f'{ours}.attentions.{index}.attention.projection'))
  yield from _each(feed_forward(block, f'{theirs}/ff', f'{ours}.feed_forward'))


# --- Positions -------------------------------------------------------------------------------------------------------
#
# Of a stack, behind what else may come before; both stacks have the same number of positions.


def _table(
  config: TablePositionsConfig, d_model: int, stack: str, before: list[Part], n_positions: int | None
) -> Positions:
  name, ours = f'{stack}_pos/table', f'{stack}_positions.table_PxD'
  tables = [
    Part(name, (n_positions, d_model), ours),
    Part(name, (1, n_positions, d_model), ours),  # before 30 March 2021
    Part(name, (n_positions, None), ours, combine=product),
  ]
  part, shape = yield before + tables
  if part in before:
    part, shape = yield tables
  if part == tables[-1]:
    yield [Part(f'{stack}_pos/projection', (shape[1], d_model), ours, combine=product)]
  return shape[-2]


def _digits(
  config: FixedBasePositionsConfig, d_model: int, stack: str, before: list[Part], n_positions: int | None
) -> Positions:
  ours = f'{stack}_positions.weights_NxIxW'
  digits = [
    Part(f'{stack}_pos/base{base}_digit{digit}', (1, d_model // config.n_digits), ours, combine=np.stack)
    for base in range(len(config.bases))
    for digit in range(config.n_digits)
  ]
  return (
    yield from _behind(before, [*digits, Part(f'{stack}_pos/start_vec', (1, 1, d_model), f'{stack}_positions.start_D')])
  )


def _axial(
  config: AxialPositionsConfig, d_model: int, stack: str, before: list[Part], n_positions: int | None
) -> Positions:
  tables = []
  for axis, (length, width) in enumerate(zip(config.shape, config.widths, strict=True)):
    around = [1] * len(config.shape)
    around[axis] = length
    tables.append(Part(f'{stack}_pos/axis{axis}', (1, *around, width), f'{stack}_positions.tables_CxW.{axis}'))
  return (yield from _behind(before, tables))


def _behind(before: list[Part], parts: list[Part]) -> Positions:
  part, _ = yield before + parts[:1]
  yield from _each(parts if part in before else parts[1:])


_POSITIONS: dict[type, Callable[..., Positions]] = {
  TablePositionsConfig: _table,
  FixedBasePositionsConfig: _digits,
  AxialPositionsConfig: _axial,
}


# --- The output layer ------------------------------------------------------------------------------------------------


def _one_bias(arrays: Sequence[np.ndarray]) -> np.ndarray:
  """The bias behind both layers of a low-rank output, which adds what the bias between them does."""
  inner, kernel, outer = arrays
  return inner @ kernel + outer


def _output(architecture: Architecture, n_ids: int) -> list[Part]:
  config, d_model = architecture.model.output, architecture.model.d_model
  if isinstance(config, DenseOutputConfig):
    return dense('loss', 'output', d_model, n_ids)
  if isinstance(config, LowRankOutputConfig):
    contract, expand = 'output.contract.kernel_DxF', 'output.expand.kernel_DxF'
    bias = 'output.expand.bias_F'
    return [
      Part('loss/dense1/kernel', (d_model, config.rank), contract),
      Part('loss/dense1/bias', (config.rank,), bias, combine=_one_bias),
      Part('loss/dense2/kernel', (config.rank, n_ids), expand, also=bias),
      Part('loss/dense2/bias', (n_ids,), bias),
    ]
  assert isinstance(config, SparseOutputConfig)
  return [
    Part('loss/gating', (config.n_modules, d_model), 'output.gating_SxD'),
    Part('loss/projection', (d_model, n_ids // config.n_modules), 'output.projection_WxD', (1, 0)),
    Part('loss/bias', (n_ids,), 'output.bias_SxW'),
  ]
