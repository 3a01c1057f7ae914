"""What a stack does with its residual streams: one or two, stored or recomputed, rounded to a grid or not."""

from collections.abc import Callable

import jax
from flax import nnx

from terraformer.config import ResidualConfig
from terraformer.ops.fixed_point import to_grid
from terraformer.ops.reversible import Streams, rematerialized_stack, reversible_stack, stack


class Residual(nnx.Module):
  """How a vector enters the residual streams and leaves them, and how layers run over them."""

  def __init__(self, config: ResidualConfig):
    self.config = config

  @property
  def two_streams(self) -> bool:
    """Whether there are two, so that a layer can be inverted."""
    return self.config.n_streams == 2

  @property
  def exact(self) -> bool:
    """Whether all that enters the streams and is added to them lies on a grid, so that nothing is rounded."""
    return self.config.fixed_point

  @property
  def reversible(self) -> bool:
    """Whether the backward pass recomputes the streams from the last ones; it can update the layers as it goes."""
    return self.two_streams and not self.config.keep_activations

  @property
  def forget_every(self) -> int:
    """Layers after which the streams are merged; 0 for never."""
    return self.config.forget_every

  @property
  def run(self) -> Callable[..., Streams]:
    """The function of `ops.reversible` that runs the layers."""
    if self.reversible:
      return reversible_stack
    return stack if self.config.keep_activations else rematerialized_stack

  def round(self, x: jax.Array) -> jax.Array:
    """What may enter the streams or be added to them."""
    return to_grid(x) if self.exact else x

  def split_streams(self, x: jax.Array) -> Streams:
    """One stream, or two equal ones."""
    x = self.round(x)
    return (x, x) if self.two_streams else (x,)

  def merge_streams(self, streams: Streams) -> jax.Array:
    """Their mean."""
    return sum(streams) / len(streams)
