"""The engines that compute decoding steps: our native kernels if they cover the whole model; XLA runs every model."""

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
    about: description of the engine, for statistics.
    forward: computes the logits of the next token.
    arguments: the first argument of `forward`.
  """

  about: str
  forward: Forward
  arguments: Any

  def prefill(self, prompts: Prompts, room: int, cache_dtype: str) -> Any:
    """Returns the state after the prompts, with slots for `room` new tokens."""
    ...

  def can_grow(self, n_slots: int) -> bool:
    """Returns whether a cache that will need `n_slots` slots can start smaller."""
    ...

  def extend(self, state: Any, more: int) -> Any:
    """Returns the state with slots for `more` additional tokens."""
    ...


def open_engine(
  name: str, config: ModelConfig, weights: Params, n_threads: int | None = None, dtype: str = 'float32'
) -> Engine:
  """Opens a model with the engine of this name.

  Args:
    name: `native`, `xla`, or `auto` for the native engine if it runs the model on this machine, otherwise XLA.
    config: the model's configuration for decoding, see `xla.decoding_form`.
    weights: the weights of the layerwise model: NumPy arrays, or values of `decode.stored`.
    n_threads: number of threads of the native engine; None for one per core.
    dtype: type of the weights, one of `native.layout.TYPES`.

  Raises:
    UserError: if there is no engine of this name, or the native engine was requested and cannot run the model.
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
    why = f'the native engine is not available: {error}'
  if name == 'native':
    raise UserError(f'--engine=native: {why}; use --engine=xla')
  return XlaEngine(config, weights, why)
