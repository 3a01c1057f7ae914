"""Inputs, weights, stages, outputs and gradients computed once with the authors' code on a CPU in float32.

Their weights are perturbed by N(0, 0.1), biases and normalisation included, so that one that is left out shows.
Unless a test says otherwise, agreement is to `TOLERANCE`, absolute.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

TOLERANCE = 1e-4


def load(name: str) -> dict[str, np.ndarray]:
  """The arrays of one mechanism."""
  with np.load(Path(__file__).parent / 'vectors' / f'{name}.npz') as arrays:
    return dict(arrays)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """One quantity of the reference beside ours.

  Attributes:
    quantity: its name.
    error: largest absolute difference; not a number where shapes differ.
    tolerance: that it may reach.
    note: what was left out and why, or nothing.
  """

  quantity: str
  error: float
  tolerance: float
  note: str = ''

  @property
  def ok(self) -> bool:
    """Whether the two agree; a difference that is not a number does not."""
    return self.error <= self.tolerance


class Vectors:
  """The arrays of one file, each of which is to be read as given or compared with ours.

  Attributes:
    name: of the mechanism, the file's without its ending.
    comparisons: what was compared so far.
  """

  def __init__(self, name: str, arrays: dict[str, np.ndarray]):
    self.name = name
    self._arrays = arrays
    self._covered: set[str] = set()
    self.comparisons: list[Comparison] = []

  def __getitem__(self, name: str) -> np.ndarray:
    """An input, a weight or a size."""
    self._covered.add(name)
    return self._arrays[name]

  def __contains__(self, name: str) -> bool:
    return name in self._arrays

  def names(self, prefix: str = '') -> list[str]:
    """The arrays whose name starts so."""
    return [name for name in self._arrays if name.startswith(prefix)]

  def tags(self, suffix: str) -> list[str]:
    """What stands before `suffix` where a file holds several variants, `TAG` + suffix each."""
    return [name.removesuffix(suffix) for name in self._arrays if name.endswith(suffix)]

  def part(self, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose name starts so, by the rest of their name."""
    return {name.removeprefix(prefix): self[name] for name in self.names(prefix)}

  def compare(self, name: str, ours, *, tolerance: float = TOLERANCE, label: str = '', note: str = '', where=None):
    """Compares `ours` with the array `name`, of any shape of the same size, at the entries `where` if given."""
    self.compare_with(label or name, ours, self[name], tolerance=tolerance, note=note, where=where)

  def compare_with(self, label: str, ours, expected, *, tolerance: float = TOLERANCE, note: str = '', where=None):
    """Compares `ours` with arrays of the file that were put together as ours are."""
    ours, expected = np.asarray(ours), np.asarray(expected)
    if ours.size != expected.size:
      error = float('nan')
      note = f'shape {ours.shape} here, {expected.shape} in the reference'
    else:
      difference = np.abs(ours.astype(np.float64).reshape(expected.shape) - expected.astype(np.float64))
      error = float(difference.max() if where is None else difference[where].max(initial=0.0))
    self.comparisons.append(Comparison(label, error, tolerance, note))

  def compare_all(self, ours: dict[str, jax.Array], prefix: str = '', *, tolerance: float = TOLERANCE) -> None:
    """Compares several arrays by name."""
    for name, value in ours.items():
      self.compare(prefix + name, value, tolerance=tolerance)

  def uncovered(self) -> list[str]:
    """The arrays that nobody looked at."""
    return [name for name in self._arrays if name not in self._covered]


def assign(layer: nnx.Module, **weights: np.ndarray) -> None:
  """Sets parameters of `layer` by attribute name; shapes must agree."""
  for name, value in weights.items():
    parameter = getattr(layer, name)
    assert parameter[...].shape == value.shape, f'{name}: {parameter[...].shape} here, {value.shape} in the reference'
    parameter.set_value(jnp.asarray(value))


def assign_multiplicative(layer: nnx.Module, gating, projection, bias) -> None:
  """Loads a multiplicative dense layer."""
  bias_SxW = bias.reshape(layer.bias_SxW.get_value().shape)
  assign(layer, gating_SxD=gating, projection_DxW=projection, bias_SxW=bias_SxW)


def assign_sparse_projection(projection: nnx.Module, arrays: dict[str, np.ndarray]) -> None:
  """Loads the weights of `mult_conv_attention` into a sparse projection."""
  assign_multiplicative(projection.shared, arrays['w_gating'], arrays['w_projection'], arrays['w_mult_bias'])
  for name, convolution in zip('qkv', (projection.query, projection.key, projection.value), strict=True):
    assign(convolution, kernel_CxExVxW=arrays[f'w_{name}_kernel'], bias_W=arrays[f'w_{name}_bias'])
