"""Terraformer (paper, section 4): the encoder's output is the prefix of one causal decoder stack.

B batch, S source time, T target time, P = S + T, D d_model, V vocabulary.
"""

import jax
import jax.numpy as jnp

from terraformer.config import TerraformerConfig
from terraformer.layers.dense import Dense
from terraformer.layers.make import make_norm, make_positions
from terraformer.layers.parameter import add_facts
from terraformer.models.base import DecodeState, Model, add_stack_facts, n_tokens
from terraformer.models.one_sequence import OneSequence
from terraformer.models.stack import Stack
from terraformer.models.sublayers import SequenceMasks
from terraformer.ops.cache_slots import prompt_slots
from terraformer.ops.keys import split_key
from terraformer.ops.positions import shift_right
from terraformer.ops.reversible import Streams
from terraformer.ops.segments import Segments


class Terraformer(Model):
  """An encoder, and a decoder whose sequence is the encoder's output followed by the target tokens."""

  def __init__(self, config: TerraformerConfig, *, key: jax.Array):
    base_key, encoder_key, decoder_key, merge_key, *position_keys = jax.random.split(key, 6)
    super().__init__(config, key=base_key)
    d_model = config.d_model
    self.encoder_positions, self.decoder_positions = (
      make_positions(config.positions, config.max_length, d_model, key=key) for key in position_keys
    )
    self.encoder = Stack(
      config,
      config.encoder,
      config.n_encoder_layers,
      1,
      causal=False,
      exchange=config.exchange_encoder_streams,
      key=encoder_key,
    )
    self.decoder = Stack(
      config, config.decoder, config.n_decoder_layers, config.n_decoder_attentions, causal=True, key=decoder_key
    )
    self.merge = Dense(d_model, d_model, key=merge_key, axes=('embed', None)) if config.merge_encoder else None
    self.merge_norm = make_norm(config.output_norm or config.encoder.norm, d_model) if config.merge_encoder else None
    add_stack_facts(self)
    add_facts(self.merge, group='merging streams', in_step=False)
    add_facts(self.merge_norm, in_step=False)

  def _encode(self, inputs_BxS: jax.Array, key, segment_BxS: jax.Array | None = None) -> Streams:
    embed_key, position_key, stack_key = split_key(key, 3)
    e_BxSxD = self.embed(inputs_BxS, self.config.encoder.dropout, embed_key)
    e_BxSxD = self.encoder_positions(e_BxSxD, key=position_key, segment_BxT=segment_BxS)
    residual, masks = self.encoder.residual, SequenceMasks(inputs_BxS != 0, segment_BxT=segment_BxS)
    streams = self.encoder(residual.split_streams(e_BxSxD), masks, key=stack_key)
    if self.merge is None:
      return streams
    return residual.split_streams(self.merge_norm(self.merge(residual.merge_streams(streams))))

  def hidden(
    self,
    inputs_BxS: jax.Array,
    targets_BxT: jax.Array,
    *,
    segments: Segments | None = None,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the decoder's vectors BxTxD, from which `logits` predicts the targets; arguments as in `__call__`."""
    encoder_key, embed_key, position_key, decoder_key = split_key(key, 4)
    segment_BxS, segment_BxT = (None, None) if segments is None else (segments.inputs_BxS, segments.targets_BxT)
    d_BxTxD = self.embed(shift_right(targets_BxT, segment_BxT), self.config.decoder.dropout, embed_key)
    d_BxTxD = self.decoder_positions(d_BxTxD, key=position_key, segment_BxT=segment_BxT)
    residual, sequence = self.decoder.residual, OneSequence(inputs_BxS, targets_BxT, segments)
    encoded = self._encode(inputs_BxS, encoder_key, segment_BxS)
    streams = tuple(map(sequence.write, encoded, residual.split_streams(d_BxTxD)))
    streams = self.decoder(streams, sequence.masks(self.config.decoder), key=decoder_key)
    return sequence.read(residual.merge_streams(streams))

  def stack_lengths(self, inputs_BxS: jax.Array, targets_BxT: jax.Array) -> dict[str, jax.Array]:
    """Returns the number of real positions of each example in each stack: name of the stack -> int32 B."""
    n_inputs_B, n_targets_B = n_tokens(inputs_BxS), n_tokens(targets_BxT)
    return {'encoder': n_inputs_B, 'decoder': n_inputs_B + n_targets_B}

  def prefill(self, inputs_BxS: jax.Array, n_new: int) -> DecodeState:
    """Returns the state after the inputs, with free slots for `n_new` target tokens."""
    n_inputs_B, n_slots = n_tokens(inputs_BxS), inputs_BxS.shape[1]
    _, layers = self.decoder.prefill(self._encode(inputs_BxS, None), n_inputs_B, n_slots + n_new)
    return DecodeState(layers, prompt_slots(n_inputs_B, n_slots), jnp.zeros_like(n_inputs_B))

  def step(self, token_B: jax.Array, state: DecodeState) -> tuple[jax.Array, DecodeState]:
    """Returns the logits BxV of the next target token, and the new state; `token_B` is the previous token or 0."""
    x_BxD = self.decoder_positions.step(self.embedding(token_B), state.position_B)
    streams, layers = self.decoder.step(self.decoder.residual.split_streams(x_BxD), state.layers, state.filled)
    return self.logits(self.decoder.residual.merge_streams(streams)), state.advanced(layers)
