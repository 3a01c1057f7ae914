"""Entries of a checkpoint, and the parameters of this library that each becomes.

trax stores weights without names, in the order of its layers. A part says what an entry is, and by its shape whether
the file has it where it should. Names are those of the layers in trax: `encoder/block0/attn/q/kernel`.

D d_model, S modules, W width of a module, C positions that a kernel sees, E modules that it sees, F units, M blocks,
N units a block, R rank, U width of the recurrence, H heads, K head width.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from terraformer.config import (
  BlockConfig,
  DenseFFConfig,
  DenseProjectionConfig,
  ModularProjectionConfig,
  RMSNormConfig,
  SparseFFConfig,
  SparseProjectionConfig,
)

Shape = tuple[int | None, ...]
# Several entries of one parameter -> its value.
Combine = Callable[[Sequence[np.ndarray]], np.ndarray]


def mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
  """The entry itself, or the mean of several."""
  return arrays[0] if len(arrays) == 1 else sum(arrays[1:], start=arrays[0]) / len(arrays)


def product(arrays: Sequence[np.ndarray]) -> np.ndarray:
  """The entry itself, or the matrix product of two."""
  return arrays[0] if len(arrays) == 1 else arrays[0] @ arrays[1]


@dataclasses.dataclass(frozen=True)
class Part:
  """One entry.

  Attributes:
    name: of the entry.
    shape: of the entry; None stands for any size.
    to: name of the parameter, in the layerwise form of a model; empty if the entry has no counterpart here.
    axes: order of the entry's axes in the parameter; empty for the same.
    combine: makes the parameter, if the entry is the first of several with the same `to`.
    also: name of a second parameter that the entry is a part of; empty if there is none.
    is_copy: whether the entry must equal the first one of the file.
  """

  name: str
  shape: Shape
  to: str
  axes: tuple[int, ...] = ()
  combine: Combine = mean
  also: str = ''
  is_copy: bool = False

  def fits(self, shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape can be the entry."""
    return len(shape) == len(self.shape) and all(a in (None, b) for a, b in zip(self.shape, shape, strict=True))

  def arranged(self, array: np.ndarray) -> np.ndarray:
    """The entry in the order of the parameter's axes."""
    return array.transpose(self.axes) if self.axes else array


def dense(theirs: str, ours: str, d_in: int, d_out: int, bias: bool = True) -> list[Part]:
  """A dense layer."""
  kernel = Part(f'{theirs}/kernel', (d_in, d_out), f'{ours}.kernel_DxF')
  return [kernel, Part(f'{theirs}/bias', (d_out,), f'{ours}.bias_F')] if bias else [kernel]


def norm(theirs: str, ours: str, d_model: int, centered: bool = True) -> list[Part]:
  """A normalization; trax stores a bias for one without centering as well and does not use it."""
  return [
    Part(f'{theirs}/scale', (d_model,), f'{ours}.scale_D'),
    Part(f'{theirs}/bias', (d_model,), f'{ours}.bias_D' if centered else ''),
  ]


def multiplicative(theirs: str, ours: str, n_modules: int, d_model: int, bias: str = 'bias') -> list[Part]:
  """A multiplicative dense layer of D inputs and outputs."""
  return [
    Part(f'{theirs}/gating', (n_modules, d_model), f'{ours}.gating_SxD'),
    Part(f'{theirs}/projection', (d_model, d_model // n_modules), f'{ours}.projection_DxW'),
    Part(f'{theirs}/{bias}', (d_model,), f'{ours}.bias_SxW'),
  ]


def convolution(theirs: str, ours: str, seen: tuple[int, int], width_in: int, width: int) -> list[Part]:
  """A convolution over positions and modules; `seen` are the sizes of its kernel."""
  return [
    Part(f'{theirs}_kernel', (*seen, width_in, width), f'{ours}.kernel_CxExVxW'),
    Part(f'{theirs}_bias', (width,), f'{ours}.bias_W'),
  ]


def dense_projection(config: DenseProjectionConfig, d_model: int, averaged: bool, theirs: str, ours: str) -> list[Part]:
  """Queries, keys, values and output by a matrix each.

  Args:
    config: the projection.
    d_model: D.
    averaged: whether the file has separate queries and keys, whose mean is both.
    theirs, ours: names that the parts' names begin with.
  """
  names = {'q': 'query', 'k': 'query' if averaged else 'key', 'v': 'value', 'o': 'output'}
  if config.share_qk and not averaged:
    names = {'qk': 'query', 'v': 'value', 'o': 'output'}
  found = []
  for letter, name in names.items():
    found += dense(f'{theirs}/{letter}', f'{ours}.{name}', d_model, d_model, config.bias)
  return found


def heads_projection(config: DenseProjectionConfig, d_model: int, n_heads: int, theirs: str, ours: str) -> list[Part]:
  """The same as it is stored head by head."""
  width = d_model // n_heads
  letters = {'qk': 'query'} if config.share_qk else {'q': 'query', 'k': 'key'}
  kernels = [
    Part(f'{theirs}/w_{letter}', (n_heads, d_model, width), f'{ours}.{name}.kernel_DxF', (1, 0, 2))
    for letter, name in (letters | {'v': 'value'}).items()
  ]
  return [*kernels, Part(f'{theirs}/w_o', (n_heads, width, d_model), f'{ours}.output.kernel_DxF')]


def sparse_projection(
  config: SparseProjectionConfig, d_model: int, averaged: bool, theirs: str, ours: str
) -> list[Part]:
  """Queries, keys and values by a multiplicative layer and convolutions; arguments as of `dense_projection`."""
  width = d_model // config.n_modules
  wide, narrow = (config.length_kernel, config.module_kernel), (config.length_kernel, 1)
  found = multiplicative(theirs, f'{ours}.shared', config.n_modules, d_model, 'mult_bias')
  if config.share_qk and not averaged:
    found += convolution(f'{theirs}/qk', f'{ours}.query', wide, width, width)
  else:
    found += convolution(f'{theirs}/q', f'{ours}.query', wide, width, width)
    found += convolution(f'{theirs}/k', f'{ours}.{"query" if averaged else "key"}', wide, width, width)
  found += convolution(f'{theirs}/v', f'{ours}.value', narrow, width * (1 + config.value_reads_input), width)
  if config.output_multiplicative:
    found += multiplicative(f'{theirs}/o', f'{ours}.output', config.n_modules, d_model)
  if config.output_convolution:
    found += convolution(f'{theirs}/o', f'{ours}.output_convolution', wide, width, width)
  return found


def modular_projection(config: ModularProjectionConfig, d_model: int, theirs: str, ours: str) -> list[Part]:
  """Queries, keys, values and output by a multiplicative layer with a dense layer a module each."""
  n_modules, width = config.n_modules, d_model // config.n_modules
  found = []
  for letter, name in {'q': 'query', 'k': 'key', 'v': 'value', 'o': 'output'}.items():
    found += [
      Part(f'{theirs}/{letter}/gating', (n_modules, d_model), f'{ours}.{name}.gating_SxD'),
      Part(f'{theirs}/{letter}/projection', (d_model, width), f'{ours}.{name}.projection_DxW'),
      Part(f'{theirs}/{letter}/modular', (n_modules, width, width), f'{ours}.{name}.modular_SxWxV'),
      Part(f'{theirs}/{letter}/bias', (d_model,), f'{ours}.{name}.bias_SxV'),
    ]
  return found


def feed_forward(block: BlockConfig, theirs: str, ours: str) -> list[Part]:
  """The feed-forward block and the recurrence beside it, each with its normalization."""
  centered = not isinstance(block.norm, RMSNormConfig)
  found = norm(f'{theirs}/ln', f'{ours}.norm', block.d_model, centered)
  config, inside = block.feed_forward, f'{ours}.feed_forward'
  if isinstance(config, SparseFFConfig):
    found += _sparse_ff(config, block.d_model, f'{theirs}/sparse_ff', inside)
  elif isinstance(config, DenseFFConfig):
    found += dense(f'{theirs}/dense1', f'{inside}.expand', block.d_model, config.d_ff)
    found += dense(f'{theirs}/dense2', f'{inside}.contract', config.d_ff, block.d_model)
  else:
    raise TypeError(f'{type(config).__name__} has no counterpart in trax')
  if block.recurrence is not None:
    width, branch, ours = block.recurrence.width, f'{theirs}/sru_branch', f'{ours}.recurrence'
    found += norm(f'{branch}/ln', f'{ours}.norm', block.d_model, centered)
    found += dense(f'{branch}/dense_in', f'{ours}.contract', block.d_model, width)
    found += dense(f'{branch}/sru', f'{ours}.sru.gates', width, 3 * width)
    found += dense(f'{branch}/dense_out', f'{ours}.expand', width, block.d_model)
  return found


def _sparse_ff(config: SparseFFConfig, d_model: int, theirs: str, ours: str) -> list[Part]:
  m, n, r = config.n_blocks, config.block_size, config.rank
  return [
    Part(f'{theirs}/m1', (d_model, r), f'{ours}.controller_DxR'),
    Part(f'{theirs}/m2', (r, m, n), f'{ours}.controller_RxMxN'),
    Part(f'{theirs}/mb', (m, n), f'{ours}.controller_bias_MxN'),
    Part(f'{theirs}/w1', (d_model, m, n), f'{ours}.w1_MxNxD', (1, 2, 0)),
    Part(f'{theirs}/w2', (n, m, d_model), f'{ours}.w2_MxNxD', (1, 0, 2)),
    Part(f'{theirs}/b2', (d_model,), f'{ours}.bias_D'),
  ]
