"""What computes a decoding step: kernels of our own where a model has them all, XLA for every model."""

from typing import Any, Protocol

from terraformer.config import ModelConfig, UserError
from terraformer.decode.native.description import NoKernelError
from terraformer.decode.native.engine import NativeEngine
from terraformer.decode.prompts import Prompts
from terraformer.decode.step import Forward
from terraformer.decode.xla import XlaEngine
from terraformer.models.parameters import Params


class Engine(Protocol):
  """A model that is ready to decode.

  Attributes:
    about: the engine in words, for statistics.
    forward: gives the logits of the next token.
  """

  about: str
  forward: Forward

  def arguments(self, cache_dtype: str) -> Any:
    """The first argument of `forward`, for a KV cache of some type."""
    ...

  def prefill(self, prompts: Prompts, room: int, cache_dtype: str) -> Any:
    """The state after the prompts, with room for `room` tokens."""
    ...

  def can_grow(self, n_slots: int) -> bool:
    """Whether a cache that will have `n_slots` slots may begin small."""
    ...

  def extend(self, state: Any, more: int) -> Any:
    """The state with room for `more` additional tokens."""
    ...


def open_engine(
  name: str, config: ModelConfig, weights: Params, n_threads: int | None = None, dtype: str = 'float32'
) -> Engine:
  """Opens a model with the engine of a name.

  Args:
    name: `native`, `xla`, or `auto` for the native engine where it runs the model on this machine, else XLA.
    config: of the decoding form.
    weights: of the layerwise model: NumPy arrays, or values of `decode.stored`.
    n_threads: of the native engine; None for one per core.
    dtype: of the weights, of `native.layout.TYPES`.

  Raises:
    UserError: if there is no such engine, or the native one was asked for and cannot run the model.
  """
  if name == 'xla':
    return XlaEngine(config, weights)
  if name not in ('auto', 'native'):
    raise UserError(f'engine: expected auto, native or xla, found {name!r:.40}')
  try:
    return NativeEngine(config, weights, n_threads or 0, dtype)
  except NoKernelError as error:
    why = f'the native engine has no kernel for {error}'
  except OSError as error:
    why = f'there is no native engine: {error}'
  if name == 'native':
    raise UserError(f'--engine=native: {why}; use --engine=xla')
  return XlaEngine(config, weights, why)
