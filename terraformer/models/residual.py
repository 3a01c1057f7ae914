"""The residual streams of a stack: one or two, stored or recomputed, rounded to a grid or not."""

from collections.abc import Callable

import jax
from flax import nnx

from terraformer.config import ResidualConfig
from terraformer.ops.fixed_point import to_grid
from terraformer.ops.reversible import Streams, rematerialized_stack, reversible_stack, stack


class Residual(nnx.Module):
  """Splits a vector into residual streams, merges them, and runs layers over them."""

  def __init__(self, config: ResidualConfig):
    self.config = config

  @property
  def two_streams(self) -> bool:
    """Whether there are two streams; if so, a layer can be inverted."""
    return self.config.n_streams == 2

  @property
  def exact(self) -> bool:
    """Whether the streams and everything added to them are rounded to a grid, where sums are exact."""
    return self.config.fixed_point

  @property
  def reversible(self) -> bool:
    """Whether the backward pass recomputes the streams from the last layer's output; it can then update the layers."""
    return self.two_streams and not self.config.keep_activations

  @property
  def forget_every(self) -> int:
    """Number of layers between merges of the streams; 0 for no merges."""
    return self.config.forget_every

  @property
  def run(self) -> Callable[..., Streams]:
    """The function from `ops.reversible` that runs the layers."""
    if self.reversible:
      return reversible_stack
    return stack if self.config.keep_activations else rematerialized_stack

  def round(self, x: jax.Array) -> jax.Array:
    """Rounds a vector to the grid if the streams are exact."""
    return to_grid(x) if self.exact else x

  def split_streams(self, x: jax.Array) -> Streams:
    """Returns one stream, or two equal ones."""
    x = self.round(x)
    return (x, x) if self.two_streams else (x,)

  def merge_streams(self, streams: Streams) -> jax.Array:
    """Returns the mean of the streams."""
    return sum(streams) / len(streams)
