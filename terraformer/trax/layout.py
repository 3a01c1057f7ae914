"""The order of the entries of a Terraformer's checkpoint.

D d_model, V vocabulary, P positions, L modules of the output layer.
"""

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


def layout(architecture: Architecture) -> Layout:
  """Yields the entries of a file one by one.

  Sizes that the configuration does not state are those of the entry that came.
  """
  model, d_model = architecture.model, architecture.model.d_model
  n_ids = architecture.vocab_size
  _, (n_ids, _) = yield [Part('embedding', (n_ids, d_model), 'embedding.table_VxD')]
  # The memory-efficient trainer stores the decoder's embedding, which is the same, once more.
  again = Part('embedding_again', (n_ids, d_model), '', is_copy=True)
  yield from _POSITIONS[type(model.positions)](model.positions, architecture, again)
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
# Of the encoder and of the decoder, with what may stand between them; both have the same number of positions.


def _tables(config: TablePositionsConfig, architecture: Architecture, again: Part) -> Layout:
  d_model = architecture.model.d_model
  part, (*_, n_positions, rank) = yield _forms('encoder', None, d_model)
  before = [again]
  if rank != d_model:
    yield [_matrix('encoder', rank, d_model)]
  # A matrix of full rank has the shape of another table if there are as many positions; then the file must say it.
  elif part.fits((n_positions, d_model)) and (n_positions != d_model or architecture.rank == d_model):
    before.append(_matrix('encoder', d_model, d_model))
  is_full_rank = False
  forms = _forms('decoder', n_positions, d_model)
  while (answer := (yield before + forms))[0] not in forms:
    is_full_rank |= answer[0] != again
    before = [] if answer[0] == again else [again]  # which comes last
  rank = answer[1][-1]
  if rank != d_model or is_full_rank:
    yield [_matrix('decoder', rank, d_model)]


def _forms(stack: str, n_positions: int | None, d_model: int) -> list[Part]:
  """A table as it may be: full, with an axis more as before 30 March 2021, or of low rank."""
  shapes = (n_positions, d_model), (1, n_positions, d_model), (n_positions, None)
  return [Part(f'{stack}_pos/table', shape, f'{stack}_positions.table_PxD', combine=product) for shape in shapes]


def _matrix(stack: str, rank: int, d_model: int) -> Part:
  return Part(f'{stack}_pos/projection', (rank, d_model), f'{stack}_positions.table_PxD')


def _digits(config: FixedBasePositionsConfig, architecture: Architecture, again: Part) -> Layout:
  d_model = architecture.model.d_model

  def of(stack: str) -> list[Part]:
    ours = f'{stack}_positions.weights_NxIxW'
    digits = [
      Part(f'{stack}_pos/base{base}_digit{digit}', (1, d_model // config.n_digits), ours, combine=np.stack)
      for base in range(len(config.bases))
      for digit in range(config.n_digits)
    ]
    return [*digits, Part(f'{stack}_pos/start_vec', (1, 1, d_model), f'{stack}_positions.start_D')]

  yield from _each(of('encoder'))
  yield from _behind([again], of('decoder'))


def _axial(config: AxialPositionsConfig, architecture: Architecture, again: Part) -> Layout:
  def of(stack: str) -> list[Part]:
    tables = []
    for axis, (length, width) in enumerate(zip(config.shape, config.widths, strict=True)):
      around = [1] * len(config.shape)
      around[axis] = length
      tables.append(Part(f'{stack}_pos/axis{axis}', (1, *around, width), f'{stack}_positions.tables_CxW.{axis}'))
    return tables

  yield from _each(of('encoder'))
  yield from _behind([again], of('decoder'))


def _behind(before: list[Part], parts: list[Part]) -> Layout:
  part, _ = yield before + parts[:1]
  yield from _each(parts if part in before else parts[1:])


_POSITIONS: dict[type, Callable[..., Layout]] = {
  TablePositionsConfig: _tables,
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
