"""The native engine: one call of the native library computes a whole decoding step.

XLA reads the prompt, embeds tokens and chooses the next token; the library does everything in between. The KV cache is
an argument that the call updates in place.

B batch, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import ModelConfig
from terraformer.decode.native.description import NoKernelError, Types
from terraformer.decode.native.model import describe
from terraformer.decode.native.state import NativeState, StateSizes, extended, native_state
from terraformer.decode.prompts import Prompts
from terraformer.decode.shapes import abstract_layerwise, layerwise_facts, read_by_xla
from terraformer.decode.xla import layerwise_model
from terraformer.models.base import DecodeState
from terraformer.models.parameters import Params, flatten, merge_module, split_module, unflatten
from terraformer.native import layout
from terraformer.native.library import STEP, library
from terraformer.native.plan import Model


@dataclasses.dataclass(frozen=True)
class NativeForward:
  """The step of a model, which takes the library's number of the model and the weights that XLA reads."""

  config: ModelConfig

  def __call__(
    self, arguments: tuple[jax.Array, dict[str, jax.Array]], token_B: jax.Array, state: NativeState
  ) -> tuple[jax.Array, NativeState]:
    """Returns the logits of the next token, BxV, and the state after `token_B`; for programs that donate the state."""
    number, weights = arguments
    structure, shapes = split_module(abstract_layerwise(self.config))
    model = merge_module(structure, unflatten(flatten(shapes) | weights))
    x_BxD = embed(model, token_B, state.position_B)
    logits = jax.ShapeDtypeStruct((len(token_B), self.config.vocab_size), jnp.float32)
    cache = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (state.pages, state.state)]
    call = jax.ffi.ffi_call(STEP, [logits, *cache], input_output_aliases={3: 1, 4: 2})
    logits_BxV, pages, kept = call(
      number, x_BxD, state.length_B, state.pages, state.state, state.memory_length_B, state.memory
    )
    counts = {'length_B': state.length_B + 1, 'position_B': state.position_B + 1}
    return logits_BxV, dataclasses.replace(state, pages=pages, state=kept, **counts)


def embed(model: Any, token_B: jax.Array, position_B: jax.Array) -> jax.Array:
  """Returns what the decoder's first layer reads for a token at its position, BxD."""
  positions = model.positions if hasattr(model, 'positions') else model.decoder_positions
  return model.decoder.residual.round(positions.step(model.embedding(token_B), position_B))


class NativeEngine:
  """A model that the native library runs.

  Attributes:
    about: description of the engine, for statistics.
    forward: computes the logits of the next token.
  """

  def __init__(self, config: ModelConfig, weights: Params, n_threads: int = 0, dtype: str = 'float32'):
    """Prepares a model for decoding.

    Args:
      config: the model's configuration for decoding, see `xla.decoding_form`.
      weights: the weights of the layerwise model: NumPy arrays, or values of `decode.stored`. Those stored in the
        layout of the kernels are not copied.
      n_threads: maximum number of threads; 0 for one per core, which is also the limit.
      dtype: type of matrices and rows for the kernels, one of `layout.TYPES`.

    Raises:
      NoKernelError: if the library has no kernel for one of the model's layers.
      OSError: if the library is not available.
    """
    library()
    self.forward = NativeForward(config)
    self._config, self._n_threads, self._dtype = config, n_threads, dtype
    self._layerwise = layerwise_model(config, weights)
    self._stored = weights
    facts = layerwise_facts(config)
    self._read_by_xla = {
      name: jax.device_put(value, may_alias=True)
      for name, value in flatten(weights).items()
      if read_by_xla(facts[name])
    }
    self._tensors: dict[str, np.ndarray] = {}
    self._opened: dict[str, tuple[Model, Callable[[DecodeState], NativeState], StateSizes]] = {}
    model, *_ = self._model('float32')
    self.about = f'native ({model.variant}, {model.n_threads} thread{"s" if model.n_threads > 1 else ""})'

  def _model(self, cache_dtype: str) -> tuple[Model, Callable[[DecodeState], NativeState], StateSizes]:
    """Returns the model for a type of cache, a function from XLA's state to its state, and the sizes of that; models
    share tensors."""
    if cache_dtype not in self._opened:
      description = describe(self._layerwise, Types(self._dtype, cache_dtype))
      if description.missing:
        raise NoKernelError(', '.join(sorted(set(description.missing))))
      for name, tensor in description.plan.tensors.items():
        if name not in self._tensors:
          self._tensors[name] = tensor.make()
      tensors = [self._tensors[name] for name in description.plan.tensors]
      model = Model(description.plan, tensors, self._n_threads)
      to_native = jax.jit(functools.partial(native_state, description))
      self._opened[cache_dtype] = model, to_native, StateSizes.of(description.plan)
    return self._opened[cache_dtype]

  def arguments(self, cache_dtype: str) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the first argument of `forward`, for a KV cache of this type."""
    return jnp.int32(self._model(cache_dtype)[0].number), self._read_by_xla

  def sizes(self, cache_dtype: str) -> StateSizes:
    """Returns the sizes of a text's state, with a KV cache of this type."""
    return self._model(cache_dtype)[2]

  def prefill(self, prompts: Prompts, room: int, cache_dtype: str) -> NativeState:
    """Returns the state after the prompts, with slots for `room` new tokens."""
    return self.from_xla(prompts.prefill(self._reader, 1), room, cache_dtype)

  def from_xla(self, prompt: DecodeState, room: int, cache_dtype: str) -> NativeState:
    """Returns the state for XLA's state after prompts, with slots for `room` new tokens."""
    _, to_native, _ = self._model(cache_dtype)
    state = to_native(prompt)
    missing = int(np.max(state.length_B)) + room - state.n_slots
    # A step donates the state's buffers, so no two arrays may share one.
    return jax.tree.map(jnp.copy, self.extend(state, max(0, missing)))

  @functools.cached_property
  def _reader(self) -> Any:
    """The model with which XLA reads prompts; files stay mapped."""
    return layerwise_model(self._config, jax.device_put(self._stored, may_alias=True))

  def can_grow(self, n_slots: int) -> bool:
    """Returns True: a cache can always start small, since adding pages does not change earlier ones."""
    return True

  def extend(self, state: NativeState, more: int) -> NativeState:
    """Returns the state with slots for `more` additional tokens."""
    return extended(state, -(-more // layout.PAGE))
