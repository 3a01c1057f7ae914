"""A model that the native library has opened, and its step inside compiled programs.

XLA turns tokens into vectors, chooses among the logits, and has the cache; all between is one foreign call.

B batch, V vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import ModelConfig
from terraformer.decode.bundle import abstract_layerwise, layerwise_facts
from terraformer.decode.native.description import Types
from terraformer.decode.native.model import describe
from terraformer.decode.native.state import NativeState, grown, native_state
from terraformer.models.base import DecodeState
from terraformer.models.parameters import Params, flatten, merge_module, split_module, unflatten
from terraformer.native import layout
from terraformer.native.library import STEP, library
from terraformer.native.plan import Model

# What XLA reads of a model, by the group of its parameters.
_GROUPS_OF_XLA = ('embedding', 'positions')


class Engine:
  """The step of a model by the native library.

  Attributes:
    n_threads: that it runs on.
    variant: the kind of code, `avx2` or another of `native.library.variants`.
  """

  def __init__(self, config: ModelConfig, weights: Params, types: Types, n_threads: int = 0):
    """Opens a model, whose matrices are packed; rows that are picked one by one stay where they lie.

    Args:
      config: of the decoding form.
      weights: of the unrolled model, arrays of NumPy.
      types: of weights and cache.
      n_threads: 0 for as many as there are cores; never more.

    Raises:
      NoKernelError: if the library has none for one of the model's layers.
      OSError: if there is no library.
    """
    library()
    self._config = config
    structure, facts, flat = split_module(abstract_layerwise(config))[0], layerwise_facts(config), flatten(weights)
    self._description = describe(merge_module(structure, weights), types)
    plan = self._description.plan
    self._model = Model(plan, [tensor.make() for tensor in plan.tensors.values()], n_threads)
    self.n_threads, self.variant = self._model.n_threads, self._model.variant
    read = {name: x for name, x in flat.items() if facts[name].in_step and facts[name].group in _GROUPS_OF_XLA}
    self._weights = jax.device_put(read, may_alias=True)
    self._number = jnp.int32(self._model.number)

  @property
  def arguments(self) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What a compiled program hands to `logits`: the library's number of the model, and the weights that XLA reads."""
    return self._number, self._weights

  def begun(self, state: DecodeState, room: int) -> NativeState:
    """The state behind the prompts, as the library keeps it, with places for so many tokens more."""
    own = native_state(self._description, state.layers, state.filled.prompt_B, state.position_B)
    n_places = int(np.max(own.length_B)) + room
    missing = -(-n_places // layout.PAGE) - len(own.pages)
    # A step takes the state's buffers for its own, and none of them may be two arrays'.
    return jax.tree.map(jnp.copy, grown(own, max(0, missing)))

  def logits(self, arguments, token_B: jax.Array, state: NativeState) -> tuple[jax.Array, NativeState]:
    """Logits BxV of the next token, and the state behind it; for compiled programs that donate the state.

    Args:
      arguments: those of this engine.
      token_B: the last token of each text; 0 before the first one.
      state: behind the token before, with room for one more.
    """
    number, weights = arguments
    structure, shapes = split_module(abstract_layerwise(self._config))
    model = merge_module(structure, unflatten(flatten(shapes) | weights))
    positions = model.positions if hasattr(model, 'positions') else model.decoder_positions
    x_BxD = model.decoder.residual.round(positions.step(model.embedding(token_B), state.position_B))
    logits = jax.ShapeDtypeStruct((len(token_B), self._config.vocab_size), jnp.float32)
    cache = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (state.pages, state.state)]
    call = jax.ffi.ffi_call(STEP, [logits, *cache], input_output_aliases={3: 1, 4: 2})
    logits_BxV, pages, kept = call(
      number, x_BxD, state.length_B, state.pages, state.state, state.memory_length_B, state.memory
    )
    counts = {'length_B': state.length_B + 1, 'position_B': state.position_B + 1}
    return logits_BxV, dataclasses.replace(state, pages=pages, state=kept, **counts)
