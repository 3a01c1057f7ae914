"""The native engine: one call of the native library computes a whole decoding step.

XLA reads the prompt, embeds tokens and chooses the next token; the library does everything in between. The KV cache is
an argument that the call updates in place.

B batch, V vocabulary.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import AttentionConfig, ModelConfig
from terraformer.decode.native.description import NoKernelError, Types
from terraformer.decode.native.model import describe
from terraformer.decode.native.state import FromXla, NativeState, StateSizes, extended
from terraformer.decode.prompts import Prompts
from terraformer.decode.shapes import abstract_layerwise, layerwise_facts, read_by_xla
from terraformer.decode.xla import layerwise_model
from terraformer.layers.lsh_attention import LSHCache
from terraformer.models.base import DecodeState
from terraformer.models.parameters import Params, flatten, merge_module, split_module, unflatten
from terraformer.native import layout
from terraformer.native.library import STEP, library
from terraformer.native.plan import Model


@dataclasses.dataclass(frozen=True)
class NativeForward:
  """The step of a model, which takes the weights that XLA reads by name."""

  config: ModelConfig

  def __call__(
    self, weights: dict[str, jax.Array], token_B: jax.Array, state: NativeState
  ) -> tuple[jax.Array, NativeState]:
    """Returns the logits of the next token, BxV, and the state after `token_B`; for programs that donate the state."""
    structure, shapes = split_module(abstract_layerwise(self.config))
    model = merge_module(structure, unflatten(flatten(shapes) | weights))
    x_BxD = embed(model, token_B, state.position_B)
    logits = jax.ShapeDtypeStruct((len(token_B), self.config.vocab_size), jnp.float32)
    cache = state.pages, state.state, state.tables
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in cache]
    call = jax.ffi.ffi_call(STEP, [logits, *shapes], input_output_aliases={3: 1, 4: 2, 5: 3})
    logits_BxV, pages, kept, tables = call(
      state.number, x_BxD, state.length_B, *cache, state.memory_length_B, state.memory
    )
    counts = {'length_B': state.length_B + 1, 'position_B': state.position_B + 1}
    return logits_BxV, dataclasses.replace(state, pages=pages, state=kept, tables=tables, **counts)


def embed(model: Any, token_B: jax.Array, position_B: jax.Array) -> jax.Array:
  """Returns what the decoder's first layer reads for a token at its position, BxD."""
  positions = model.positions if hasattr(model, 'positions') else model.decoder_positions
  return model.decoder.residual.round(positions.step(model.embedding(token_B), position_B))


class NativeEngine:
  """A model that the native library runs.

  Attributes:
    about: description of the engine, for statistics.
    forward: computes the logits of the next token.
    arguments: the first argument of `forward`: the weights that XLA reads, by name.
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
    self.arguments = {
      name: jax.device_put(value, may_alias=True)
      for name, value in flatten(weights).items()
      if read_by_xla(facts[name])
    }
    self._tensors: dict[str, np.ndarray] = {}
    self._opened: dict[tuple, tuple[Model, FromXla, StateSizes]] = {}
    model, *_ = self._model('float32')
    self.about = f'native ({model.variant}, {model.n_threads} thread{"s" if model.n_threads > 1 else ""})'

  def _model(self, cache_dtype: str, capacity: int = 0) -> tuple[Model, FromXla, StateSizes]:
    """Returns the model for a cache, a function from XLA's state to its state, and the sizes of that; models share
    tensors."""
    form = cache_dtype, self._attention.cache_form(capacity)
    if form not in self._opened:
      description = describe(self._layerwise, Types(self._dtype, cache_dtype), capacity)
      if description.missing:
        raise NoKernelError(', '.join(sorted(set(description.missing))))
      for name, tensor in description.plan.tensors.items():
        if name not in self._tensors:
          self._tensors[name] = tensor.make()
      tensors = [self._tensors[name] for name in description.plan.tensors]
      model = Model(description.plan, tensors, self._n_threads)
      to_native = FromXla(description, model.number)
      self._opened[form] = model, to_native, StateSizes.of(description.plan, model.number)
    return self._opened[form]

  def sizes(self, cache_dtype: str) -> StateSizes:
    """Returns the sizes of a text's state, with a KV cache of this type that can grow."""
    return self._model(cache_dtype)[2]

  def prefill(self, prompts: Prompts, room: int, cache_dtype: str) -> NativeState:
    """Returns the state after the prompts, with slots for `room` new tokens."""
    # The library adds pages as they are needed, but positions are hashed for the whole capacity.
    grows = self.can_grow(prompts.tokens_BxS.shape[1] + room)
    return self.from_xla(prompts.prefill(self._reader, 1 if grows else room), room, cache_dtype)

  def from_xla(self, prompt: DecodeState, room: int, cache_dtype: str) -> NativeState:
    """Returns the state for XLA's state after prompts, with slots for `room` new tokens."""
    _, to_native, _ = self._model(cache_dtype, _capacity(prompt))
    return to_native(prompt, room)

  @property
  def _attention(self) -> AttentionConfig:
    return self._config.blocks['decoder'].attention

  @functools.cached_property
  def _reader(self) -> Any:
    """The model with which XLA reads prompts; files stay mapped."""
    return layerwise_model(self._config, jax.device_put(self._stored, may_alias=True))

  def can_grow(self, n_slots: int) -> bool:
    """Returns whether a cache that will need `n_slots` slots can start smaller."""
    return self._attention.can_grow(n_slots)

  def extend(self, state: NativeState, more: int) -> NativeState:
    """Returns the state with slots for `more` additional tokens."""
    return extended(state, layout.n_pages(more))


def _capacity(state: DecodeState) -> int:
  """Returns the capacity of the caches of LSH attention, on which their hash depends; 0 if there are none."""
  is_cache = lambda node: isinstance(node, LSHCache)  # noqa: E731
  caches = [node for node in jax.tree.leaves(state.layers, is_leaf=is_cache) if is_cache(node)]
  return caches[0].kv.capacity if caches else 0
