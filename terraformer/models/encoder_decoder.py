"""The encoder-decoder Transformer with cross-attention: the paper's Scaling Transformer (section 3).

B batch, S source time, T target time, D d_model, V vocabulary.
"""

import jax
import jax.numpy as jnp

from terraformer.config import EncoderDecoderConfig
from terraformer.layers.make import make_norm, make_positions
from terraformer.models.base import DecodeState, Model, add_stack_facts, causal_padding_mask, n_tokens
from terraformer.models.stack import Stack
from terraformer.models.sublayers import SequenceMasks
from terraformer.ops.cache_slots import prompt_slots
from terraformer.ops.keys import split_key
from terraformer.ops.positions import shift_right
from terraformer.ops.segments import Segments


class EncoderDecoder(Model):
  """An encoder, and a decoder whose layers attend to its tokens and then to the encoder's normalized output."""

  def __init__(self, config: EncoderDecoderConfig, *, key: jax.Array):
    base_key, encoder_key, decoder_key, *position_keys = jax.random.split(key, 5)
    super().__init__(config, key=base_key)
    self.encoder_positions, self.decoder_positions = (
      make_positions(config.positions, config.max_length, config.d_model, key=key) for key in position_keys
    )
    self.encoder = Stack(config, config.encoder, config.n_encoder_layers, 1, causal=False, key=encoder_key)
    self.encoder_norm = make_norm(config.encoder.norm, config.d_model)
    self.decoder = Stack(
      config,
      config.decoder,
      config.n_decoder_layers,
      config.n_decoder_attentions,
      causal=True,
      cross=True,
      key=decoder_key,
    )
    add_stack_facts(self)

  def _encode(self, inputs_BxS: jax.Array, key, segment_BxS: jax.Array | None = None) -> jax.Array:
    embed_key, position_key, stack_key = split_key(key, 3)
    e_BxSxD = self.embed(inputs_BxS, self.config.encoder.dropout, embed_key)
    e_BxSxD = self.encoder_positions(e_BxSxD, key=position_key, segment_BxT=segment_BxS)
    residual, masks = self.encoder.residual, SequenceMasks(inputs_BxS != 0, segment_BxT=segment_BxS)
    streams = self.encoder(residual.split_streams(e_BxSxD), masks, key=stack_key)
    return self.encoder_norm(residual.merge_streams(streams))

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
    memory_BxSxD = self._encode(inputs_BxS, encoder_key, segment_BxS)
    d_BxTxD = self.embed(shift_right(targets_BxT, segment_BxT), self.config.decoder.dropout, embed_key)
    d_BxTxD = self.decoder_positions(d_BxTxD, key=position_key, segment_BxT=segment_BxT)
    real_BxT = jnp.arange(targets_BxT.shape[1]) < n_tokens(targets_BxT)[:, None]
    masks = SequenceMasks(causal_padding_mask(self.config.decoder, real_BxT), inputs_BxS != 0, segment_BxT, segment_BxS)
    residual = self.decoder.residual
    return residual.merge_streams(self.decoder(residual.split_streams(d_BxTxD), masks, memory_BxSxD, key=decoder_key))

  def stack_lengths(self, inputs_BxS: jax.Array, targets_BxT: jax.Array) -> dict[str, jax.Array]:
    """Returns the number of real positions of each example in each stack: name of the stack -> int32 B."""
    n_inputs_B, n_targets_B = n_tokens(inputs_BxS), n_tokens(targets_BxT)
    return {'encoder': n_inputs_B, 'decoder': n_targets_B}

  def prefill(self, inputs_BxS: jax.Array, n_new: int) -> DecodeState:
    """Returns the state after the inputs, with free slots for `n_new` target tokens."""
    batch = inputs_BxS.shape[0]
    memory_BxSxD = self._encode(inputs_BxS, None)
    layers = self.decoder.init_cache(batch, n_new, memory_BxSxD, SequenceMasks(None, inputs_BxS != 0))
    read_B = jnp.zeros(batch, jnp.int32)
    return DecodeState(layers, prompt_slots(read_B, 0), read_B)

  def step(self, token_B: jax.Array, state: DecodeState) -> tuple[jax.Array, DecodeState]:
    """Returns the logits BxV of the next target token, and the new state; `token_B` is the previous token or 0."""
    x_BxD = self.decoder_positions.step(self.embedding(token_B), state.position_B)
    streams, layers = self.decoder.step(self.decoder.residual.split_streams(x_BxD), state.layers, state.filled)
    return self.logits(self.decoder.residual.merge_streams(streams)), state.advanced(layers)
