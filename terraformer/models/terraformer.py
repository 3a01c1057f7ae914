"""Terraformer (paper, section 4): a reversible encoder whose output is the prefix of one causal reversible decoder.

B batch, S source time, T target time, D d_model, V vocabulary.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from terraformer.config import DenseOutputConfig, TerraformerConfig
from terraformer.layers.dense import Dense
from terraformer.layers.embedding import Embedding, PositionTable
from terraformer.layers.multiplicative import MultiplicativeDense
from terraformer.layers.norm import LayerNorm
from terraformer.models.block import Padding
from terraformer.models.stack import Stack, UnrolledStack
from terraformer.ops.dropout import dropout
from terraformer.ops.positions import read_after, shift_right, write_after


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TerraformerCache:
  """What decoding keeps between tokens.

  Attributes:
    layers: the decoder layers' caches, each array with a leading axis of layers.
    position_B: target tokens read so far.
  """

  layers: Any
  position_B: jax.Array


class Terraformer(nnx.Module):
  """Inputs BxS and targets BxT, right-padded with token 0, to logits BxTxV."""

  def __init__(self, config: TerraformerConfig, *, key: jax.Array):
    embedding_key, encoder_key, decoder_key, output_key = jax.random.split(key, 4)
    d_model = config.d_model
    self.embedding = Embedding(config.vocab_size, d_model, key=embedding_key)
    self.encoder_positions = PositionTable(config.max_length, d_model)
    self.decoder_positions = PositionTable(config.max_length, d_model)
    memory = (config.keep_activations, config.unroll)
    self.encoder = Stack(config.encoder, config.n_encoder_layers, 1, False, *memory, key=encoder_key)
    self.decoder = Stack(
      config.decoder, config.n_decoder_layers, config.n_decoder_attentions, True, *memory, key=decoder_key
    )
    self.norm = LayerNorm(d_model)
    if isinstance(config.output, DenseOutputConfig):
      self.output = Dense(d_model, config.vocab_size, key=output_key, axes=('embed', 'vocab'))
    else:
      self.output = MultiplicativeDense(
        config.output.n_modules, d_model, config.vocab_size, key=output_key, output_axis='vocab'
      )
    self.config = config

  def _embed(self, tokens_BxT: jax.Array, positions: PositionTable, rate: float, key: jax.Array | None) -> jax.Array:
    x_BxTxD = dropout(self.embedding(tokens_BxT), rate, key=key, shared_axes=(1,))
    return positions(x_BxTxD)

  def _encode(self, inputs_BxS: jax.Array, embed_key, stack_key) -> tuple[jax.Array, jax.Array]:
    e_BxSxD = self._embed(inputs_BxS, self.encoder_positions, self.config.encoder.dropout, embed_key)
    return self.encoder((e_BxSxD, e_BxSxD), Padding(inputs_BxS != 0), key=stack_key)

  def _read_out(self, streams) -> jax.Array:
    return self.output(self.norm((streams[0] + streams[1]) / 2))

  def __call__(self, inputs_BxS: jax.Array, targets_BxT: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
    """Logits of every target token given the inputs and the target tokens before it.

    Args:
      inputs_BxS: source tokens; 0 is padding, which stands on the right.
      targets_BxT: target tokens; shifted to the right here.
      key: of dropout and of the controllers' noise; None is evaluation.

    Returns:
      BxTxV.
    """
    keys = (None,) * 4 if key is None else jax.random.split(key, 4)
    n_inputs_B = (inputs_BxS != 0).sum(1)
    encoded = self._encode(inputs_BxS, keys[0], keys[1])
    d_BxTxD = self._embed(shift_right(targets_BxT), self.decoder_positions, self.config.decoder.dropout, keys[2])
    streams = tuple(write_after(e_BxSxD, n_inputs_B, d_BxTxD) for e_BxSxD in encoded)
    streams = self.decoder(streams, Padding(None), key=keys[3])
    time = targets_BxT.shape[1]
    return self._read_out(tuple(read_after(x_BxPxD, n_inputs_B, time) for x_BxPxD in streams))

  def prefill(self, inputs_BxS: jax.Array, n_tokens: int) -> TerraformerCache:
    """Reads the inputs and makes room for `n_tokens` target tokens behind them."""
    n_inputs_B = (inputs_BxS != 0).sum(1).astype(jnp.int32)
    streams = self._encode(inputs_BxS, None, None)
    _, layers = self.decoder.prefill(streams, n_inputs_B, inputs_BxS.shape[1] + n_tokens)
    return TerraformerCache(layers, jnp.zeros_like(n_inputs_B))

  def step(self, token_B: jax.Array, cache: TerraformerCache) -> tuple[jax.Array, TerraformerCache]:
    """Logits BxV of the next target token.

    Args:
      token_B: the last target token; 0 before the first one.
      cache: of `prefill` or of the step before.
    """
    x_BxD = self.decoder_positions.step(self.embedding(token_B), cache.position_B)
    streams, layers = self.decoder.step((x_BxD, x_BxD), cache.layers)
    return self._read_out(streams), TerraformerCache(layers, cache.position_B + 1)


def abstract_model(config: TerraformerConfig) -> Terraformer:
  """The model with shapes in the place of arrays: its structure, at no cost."""
  return jax.eval_shape(lambda key: Terraformer(config, key=key), jax.random.key(0))


def unroll(model: Terraformer) -> Terraformer:
  """The same model with its stacks taken apart into layers: the form that is exported and decoded with."""
  unrolled = jax.tree.map(lambda x: x, model)
  unrolled.encoder = UnrolledStack(model.encoder)
  unrolled.decoder = UnrolledStack(model.decoder)
  return unrolled
