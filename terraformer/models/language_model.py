"""A decoder-only language model, plain or reversible; the source, if any, is the beginning of the sequence.

B batch, S source time, T target time, P = S + T, D d_model, V vocabulary.
"""

import jax

from terraformer.config import LanguageModelConfig
from terraformer.layers.make import make_positions
from terraformer.layers.parameter import add_facts
from terraformer.models.base import DecodeState, Model, n_tokens
from terraformer.models.one_sequence import OneSequence
from terraformer.models.stack import Stack
from terraformer.ops.cache_slots import prompt_slots
from terraformer.ops.keys import split_key
from terraformer.ops.positions import shift_right
from terraformer.ops.segments import Segments


class LanguageModel(Model):
  """One causal stack over the source, token 0 and the targets; without a source, S = 0."""

  def __init__(self, config: LanguageModelConfig, *, key: jax.Array):
    base_key, decoder_key, position_key = jax.random.split(key, 3)
    super().__init__(config, key=base_key)
    self.positions = make_positions(config.positions, config.max_length, config.d_model, key=position_key)
    self.decoder = Stack(config, config.decoder, config.n_layers, config.n_attentions, causal=True, key=decoder_key)
    add_facts(self.decoder, stack='decoder')

  def hidden(
    self,
    inputs_BxS: jax.Array,
    targets_BxT: jax.Array,
    *,
    segments: Segments | None = None,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the decoder's vectors BxTxD, from which `logits` predicts the targets; arguments as in `__call__`."""
    embed_key, position_key, decoder_key = split_key(key, 3)
    residual, sequence = self.decoder.residual, OneSequence(inputs_BxS, targets_BxT, segments)
    shifted_BxT = shift_right(targets_BxT, None if segments is None else segments.targets_BxT)
    tokens_BxP = sequence.write(inputs_BxS[..., None], shifted_BxT[..., None])[..., 0]
    x_BxPxD = self.embed(tokens_BxP, self.config.decoder.dropout, embed_key)
    x_BxPxD = self.positions(x_BxPxD, key=position_key, segment_BxT=sequence.segment_BxP)
    streams = self.decoder(residual.split_streams(x_BxPxD), sequence.masks(self.config.decoder), key=decoder_key)
    return sequence.read(residual.merge_streams(streams))

  def stack_lengths(self, inputs_BxS: jax.Array, targets_BxT: jax.Array) -> dict[str, jax.Array]:
    """Returns the number of real positions of each example in each stack: name of the stack -> int32 B."""
    n_inputs_B, n_targets_B = n_tokens(inputs_BxS), n_tokens(targets_BxT)
    return {'decoder': n_inputs_B + n_targets_B}

  def prefill(self, inputs_BxS: jax.Array, n_new: int) -> DecodeState:
    """Returns the state after the inputs, with free slots for `n_new` target tokens."""
    return self.prefill_beginning(inputs_BxS, n_tokens(inputs_BxS), n_new)

  def prefill_beginning(self, tokens_BxS: jax.Array, length_B: jax.Array, n_new: int) -> DecodeState:
    """Returns the state after the beginning of the sequence, with free slots for `n_new` tokens.

    Args:
      tokens_BxS: tokens, right-padded. If there is no source and the sequence begins with given targets, these are
        token 0 and all given targets but the last, which goes to the first `step`.
      length_B: number of tokens in each row that are not padding, int32; token 0 can be one of them.
      n_new: number of tokens that `step` will read.
    """
    batch, length = tokens_BxS.shape
    if not length:
      return DecodeState(self.decoder.init_cache(batch, n_new), prompt_slots(length_B, 0), length_B)
    streams = self.decoder.residual.split_streams(self.positions(self.embedding(tokens_BxS)))
    _, layers = self.decoder.prefill(streams, length_B, length + n_new)
    return DecodeState(layers, prompt_slots(length_B, length), length_B)

  def step(self, token_B: jax.Array, state: DecodeState) -> tuple[jax.Array, DecodeState]:
    """Returns the logits BxV of the next target token, and the new state; `token_B` is the previous token or 0."""
    x_BxD = self.positions.step(self.embedding(token_B), state.position_B)
    streams, layers = self.decoder.step(self.decoder.residual.split_streams(x_BxD), state.layers, state.filled)
    return self.logits(self.decoder.residual.merge_streams(streams)), state.advanced(layers)
