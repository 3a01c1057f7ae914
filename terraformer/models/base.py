"""The base class of models: embedding, output layer, and the methods that train and decode.

B batch, S source time, T target time, D d_model, V vocabulary.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import BlockConfig, ModelConfig
from terraformer.layers.embedding import Embedding
from terraformer.layers.make import make_norm, make_output
from terraformer.layers.parameter import add_facts
from terraformer.models.precision import cast_and_gather
from terraformer.ops.cache_slots import FilledSlots
from terraformer.ops.dropout import dropout
from terraformer.ops.segments import Segments


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodeState:
  """The state of decoding between tokens.

  Attributes:
    layers: caches of the decoder's layers: arrays with a leading axis of layers, or one cache per layer if the model is
      layerwise.
    filled: the filled slots of these caches.
    position_B: position of the next token in the decoder.
  """

  layers: Any
  filled: FilledSlots
  position_B: jax.Array

  def advanced(self, layers: Any) -> 'DecodeState':
    """Returns the state after one more position, with the new caches of the layers."""
    return DecodeState(layers, self.filled.advanced(), self.position_B + 1)

  def take(self, row_W: jax.Array) -> 'DecodeState':
    """Returns the state of the given batch rows, in their order, for a layerwise model."""

    def of_rows(x):
      # The leading axis of an array is the batch, or the batch times the heads.
      return x.reshape(len(self.position_B), -1, *x.shape[1:])[row_W].reshape(-1, *x.shape[1:]) if x.ndim else x

    return jax.tree.map(of_rows, self)


class Model(nnx.Module):
  """A model that maps inputs BxS and targets BxT, right-padded with token 0, to logits BxTxV of the targets.

  A subclass makes its stacks, calls `super().__init__` and defines `hidden`, `stack_lengths`, `prefill` and `step`.
  """

  def __init__(self, config: ModelConfig, *, key: jax.Array):
    embedding_key, output_key = jax.random.split(key)
    self.embedding = Embedding(config.vocab_size, config.d_model, key=embedding_key)
    self.norm = make_norm(config.output_norm or config.blocks['decoder'].norm, config.d_model)
    self.output = make_output(config.output, config.d_model, config.vocab_size, key=output_key)
    self.config = config

  def hidden(
    self,
    inputs_BxS: jax.Array,
    targets_BxT: jax.Array,
    *,
    segments: Segments | None = None,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the decoder's vectors BxTxD, from which `logits` predicts the targets; arguments as in `__call__`."""
    raise NotImplementedError

  def stack_lengths(self, inputs_BxS: jax.Array, targets_BxT: jax.Array) -> dict[str, jax.Array]:
    """Returns the number of real positions of each example in each stack: name of the stack -> int32 B."""
    raise NotImplementedError

  def prefill(self, inputs_BxS: jax.Array, n_new: int) -> DecodeState:
    """Returns the state after the inputs, with free slots for `n_new` target tokens."""
    raise NotImplementedError

  def step(self, token_B: jax.Array, state: DecodeState) -> tuple[jax.Array, DecodeState]:
    """Returns the logits BxV of the next target token, and the new state.

    Args:
      token_B: the previous target token; 0 before the first.
      state: state from `prefill` or the previous step.
    """
    raise NotImplementedError

  def __call__(
    self,
    inputs_BxS: jax.Array,
    targets_BxT: jax.Array,
    *,
    segments: Segments | None = None,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the logits of every target token, given the inputs and the earlier target tokens.

    Args:
      inputs_BxS: source tokens, right-padded with 0.
      targets_BxT: target tokens, right-padded with 0; the model shifts them right.
      segments: segments of packed rows, each computed as if it were alone; None if rows are not packed.
      key: random key for dropout and all other noise; None for evaluation.

    Returns:
      BxTxV.
    """
    return self.logits(self.hidden(inputs_BxS, targets_BxT, segments=segments, key=key))

  def logits(self, x_xD: jax.Array) -> jax.Array:
    """Applies the last normalization and the output layer; float32 ...xV."""
    dtype = jnp.bfloat16 if self.config.bfloat16 else jnp.float32
    return cast_and_gather(self.output, dtype)(self.norm(x_xD).astype(dtype)).astype(jnp.float32)

  def embed(self, tokens_BxT: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Returns token embeddings BxTxD, with dropout and without positions."""
    return dropout(self.embedding(tokens_BxT), rate, key=key, shared_axes=(1,))


def add_stack_facts(model: Model) -> None:
  """Adds to the parameters of encoder and decoder which stack they belong to; a decoding step reads no encoder."""
  for group in (model.encoder_positions, model.encoder, getattr(model, 'encoder_norm', None)):
    add_facts(group, stack='encoder', in_step=False)
  for group in (model.decoder_positions, model.decoder):
    add_facts(group, stack='decoder')


def causal_padding_mask(block: BlockConfig, real_BxT: jax.Array) -> jax.Array | None:
  """Returns the padding mask of a causal stack over right-padded sequences, or None if its attention needs none.

  Full attention needs none, because real positions do not see the padding after them. LSH attention needs it to keep
  padding out of its chunks.
  """
  return real_BxT if block.attention.needs_padding_mask else None


def n_tokens(tokens_BxT: jax.Array) -> jax.Array:
  """Returns the number of real tokens of each example, int32 B."""
  return (tokens_BxT != 0).sum(1).astype(jnp.int32)
