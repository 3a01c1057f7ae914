"""What the three models share: tokens in, a stack's vector for each target token, logits out, a token at a time.

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
  """What decoding keeps between tokens.

  Attributes:
    layers: the decoder layers' caches, each array with a leading axis of layers, or layerwise a cache for each layer.
    filled: which places of these caches count.
    position_B: positions read so far, by the decoder's count.
  """

  layers: Any
  filled: FilledSlots
  position_B: jax.Array

  def advanced(self, layers: Any) -> 'DecodeState':
    """After one more position, which the layers' caches have."""
    return DecodeState(layers, self.filled.advanced(), self.position_B + 1)

  def take(self, row_W: jax.Array) -> 'DecodeState':
    """The state of some of the batch rows, in the order given, of a layerwise model."""

    def of_rows(x):
      # The leading axis of an array is the batch, or the batch times the heads.
      return x.reshape(len(self.position_B), -1, *x.shape[1:])[row_W].reshape(-1, *x.shape[1:]) if x.ndim else x

    return jax.tree.map(of_rows, self)


class Model(nnx.Module):
  """Inputs BxS and targets BxT, right-padded with token 0, to logits BxTxV of each target given all before it.

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
    """The decoder's vectors BxTxD from which `logits` predicts the targets; arguments as in `__call__`."""
    raise NotImplementedError

  def stack_lengths(self, inputs_BxS: jax.Array, targets_BxT: jax.Array) -> dict[str, jax.Array]:
    """How many positions of each example are real in each stack: its name -> int32 B."""
    raise NotImplementedError

  def prefill(self, inputs_BxS: jax.Array, n_new: int) -> DecodeState:
    """Reads the inputs and makes room for `n_new` target tokens behind them."""
    raise NotImplementedError

  def step(self, token_B: jax.Array, state: DecodeState) -> tuple[jax.Array, DecodeState]:
    """Logits BxV of the next target token.

    Args:
      token_B: the last target token; 0 before the first one.
      state: of `prefill` or of the step before.
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
    """Logits of every target token given the inputs and the target tokens before it.

    Args:
      inputs_BxS: source tokens; 0 is padding, which stands on the right.
      targets_BxT: target tokens; shifted to the right here.
      segments: of rows that hold several examples, each of which is computed as if it were alone; else None.
      key: of dropout and of all other noise; None is evaluation.

    Returns:
      BxTxV.
    """
    return self.logits(self.hidden(inputs_BxS, targets_BxT, segments=segments, key=key))

  def logits(self, x_xD: jax.Array) -> jax.Array:
    """The output layer behind its normalisation, float32 ...xV."""
    dtype = jnp.bfloat16 if self.config.bfloat16 else jnp.float32
    return cast_and_gather(self.output, dtype)(self.norm(x_xD).astype(dtype)).astype(jnp.float32)

  def embed(self, tokens_BxT: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Tokens as vectors BxTxD, with dropout, without positions."""
    return dropout(self.embedding(tokens_BxT), rate, key=key, shared_axes=(1,))


def tell_stacks(model: Model) -> None:
  """Tells the parameters of an encoder and of a decoder to which of the two they belong; a step reads no encoder."""
  for group in (model.encoder_positions, model.encoder, getattr(model, 'encoder_norm', None)):
    add_facts(group, stack='encoder', in_step=False)
  for group in (model.decoder_positions, model.decoder):
    add_facts(group, stack='decoder')


def causal_padding_mask(block: BlockConfig, real_BxT: jax.Array) -> jax.Array | None:
  """The mask of a causal stack over right-padded sequences: full attention needs none, since nothing that counts sees
  what follows it; LSH attention must keep padding out of its chunks."""
  return real_BxT if block.attention.needs_padding_mask else None


def n_tokens(tokens_BxT: jax.Array) -> jax.Array:
  """Real tokens of each example, int32 B."""
  return (tokens_BxT != 0).sum(1).astype(jnp.int32)
