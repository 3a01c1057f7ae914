"""Small models that together cover every mechanism, with each model, residual and attention.

B 3 examples of S 9, 4 and 0 source tokens and T 7, 7 and 3 target tokens; D 24, H 3, V 20.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import (
  AxialPositionsConfig,
  BlockConfig,
  BlockSparseFFConfig,
  DenseFFConfig,
  DenseOutputConfig,
  DenseProjectionConfig,
  EncoderDecoderConfig,
  FixedBasePositionsConfig,
  FullAttentionConfig,
  LanguageModelConfig,
  LayerNormConfig,
  LowRankOutputConfig,
  LSHAttentionConfig,
  ModularProjectionConfig,
  PlainResidualConfig,
  ReversibleResidualConfig,
  RMSNormConfig,
  SinusoidPositionsConfig,
  SparseFFConfig,
  SparseOutputConfig,
  SparseProjectionConfig,
  SRUConfig,
  SwitchFFConfig,
  TerraformerConfig,
)
from terraformer.models.make import abstract_model
from tests.weights import filled

DENSE, SPARSE, MODULAR = DenseProjectionConfig(), SparseProjectionConfig(4), ModularProjectionConfig(4)
SHARED, SHARED_SPARSE = DenseProjectionConfig(share_qk=True), SparseProjectionConfig(4, share_qk=True)
DENSE_FF, SPARSE_FF = DenseFFConfig(30), SparseFFConfig(30, 6, 7)
SCALED_FF = SparseFFConfig(30, 6, 7, multiply_by_controller_output=True)
EXPERTS, SWITCH = BlockSparseFFConfig(30, 6), SwitchFFConfig(30, 6)
RMS, SRU = RMSNormConfig(), SRUConfig(5)
PLAIN = PlainResidualConfig()
# Chunks of 4 positions. In sequences and caches of up to 16 positions, such as all of these, queries see all positions.
LSH_IN_WHOLE = LSHAttentionConfig(chunk_length=4, full_below=16)
LSH_IN_BUCKETS = LSHAttentionConfig(chunk_length=4, full_below=0)
LSH_PLAIN = LSHAttentionConfig(chunk_length=4, full_below=0, plain_below=16)


def block(projection=SPARSE, feed_forward=SPARSE_FF, recurrence=SRU, **options) -> BlockConfig:
  """Returns a block of D 24 and H 3, with sparse mechanisms by default."""
  return BlockConfig(24, 3, projection, feed_forward, recurrence, dropout=0.1, **options)


def _both(encoder: BlockConfig, decoder: BlockConfig | None = None) -> dict[str, BlockConfig]:
  return {'encoder': encoder, 'decoder': decoder or encoder}


_DENSE = {'projection': DENSE, 'feed_forward': DENSE_FF, 'recurrence': None}
TERRAFORMERS = {
  'sparse': TerraformerConfig(20, 9, **_both(block()), output=SparseOutputConfig(4)),
  'dense': TerraformerConfig(20, 9, **_both(block(**_DENSE)), output=DenseOutputConfig()),
  'dense_encoder': TerraformerConfig(
    20,
    9,
    **_both(block(DENSE, recurrence=SRUConfig(3, tanh=True)), block(SPARSE, DENSE_FF, None)),
    output=LowRankOutputConfig(5),
    n_decoder_attentions=1,
  ),
  'plain': TerraformerConfig(
    20,
    9,
    **_both(
      block(DenseProjectionConfig(bias=False), SWITCH, None, norm=RMS),
      block(
        SparseProjectionConfig(4, value_reads_input=True, output_multiplicative=True, output_convolution=True),
        SWITCH,
        norm=RMS,
        attention=FullAttentionConfig(query_chunk=4),
        ff_chunk=4,
      ),
    ),
    residual=PLAIN,
    positions=SinusoidPositionsConfig(),
    output_norm=LayerNormConfig(),
  ),
  'forgetful': TerraformerConfig(
    20,
    9,
    n_decoder_layers=3,
    **_both(block(MODULAR, EXPERTS), block(MODULAR, SCALED_FF)),
    residual=ReversibleResidualConfig(forget_every=2),
    positions=FixedBasePositionsConfig((3, 5), 4),
    merge_encoder=True,
    exchange_encoder_streams=True,
  ),
  'lsh': TerraformerConfig(
    20,
    9,
    **_both(block(SHARED, attention=LSH_IN_WHOLE), block(SHARED_SPARSE, attention=LSH_PLAIN)),
    residual=ReversibleResidualConfig(fixed_point=True),
  ),
}
ENCODER_DECODERS = {
  'cross': EncoderDecoderConfig(
    20,
    9,
    **_both(block(DENSE), block(SparseProjectionConfig(4, output_convolution=True))),
    positions=AxialPositionsConfig((3, 4), (10, 14)),
  ),
  'plain_cross': EncoderDecoderConfig(
    20, 9, **_both(block(**_DENSE)), residual=PLAIN, output=DenseOutputConfig(), positions=SinusoidPositionsConfig()
  ),
  'lsh_cross': EncoderDecoderConfig(
    20,
    9,
    n_decoder_attentions=2,
    **_both(
      block(ModularProjectionConfig(4, share_qk=True), EXPERTS, None, attention=LSH_IN_WHOLE),
      block(SHARED_SPARSE, SWITCH, attention=LSH_IN_WHOLE, norm=RMS),
    ),
    residual=ReversibleResidualConfig(fixed_point=True, forget_every=1),
  ),
}
# Source and target together have 16 positions.
LANGUAGE_MODELS = {
  'language': LanguageModelConfig(20, 16, decoder=block(), n_attentions=2),
  'plain_language': LanguageModelConfig(
    20, 16, decoder=block(**_DENSE, norm=RMS), residual=PLAIN, output=LowRankOutputConfig(5)
  ),
  'lsh_language': LanguageModelConfig(
    20,
    16,
    decoder=block(SHARED, SCALED_FF, attention=LSH_IN_WHOLE),
    n_layers=3,
    residual=ReversibleResidualConfig(forget_every=2),
    positions=AxialPositionsConfig((4, 4), (10, 14)),
  ),
  'plain_lsh_language': LanguageModelConfig(
    20,
    16,
    decoder=block(
      SparseProjectionConfig(
        4, share_qk=True, value_reads_input=True, value_by_module=False, output_multiplicative=True
      ),
      EXPERTS,
      attention=LSH_IN_WHOLE,
    ),
    residual=PLAIN,
    positions=SinusoidPositionsConfig(),
  ),
}
CONFIGS = TERRAFORMERS | ENCODER_DECODERS | LANGUAGE_MODELS


@functools.cache
def abstract(config):
  """Returns the model of a config, with shapes instead of arrays."""
  return abstract_model(config)


def model(config, seed: int = 0):
  """Returns the model of a config with weights N(0, 0.2)."""
  return filled(abstract(config), seed)


def tokens(seed: int):
  """Returns sources of 9, 4 and 0 tokens and targets of 7, 7 and 3."""
  rng = np.random.default_rng(seed)
  inputs_BxS, targets_BxT = rng.integers(1, 20, (3, 9)), rng.integers(1, 20, (3, 7))
  inputs_BxS[np.arange(9) >= np.asarray([[9], [4], [0]])] = 0
  targets_BxT[2, 3:] = 0
  return jnp.asarray(inputs_BxS), jnp.asarray(targets_BxT)


@jax.jit
def steps(model, inputs_BxS, targets_BxT):
  """Returns the logits BxTxV, computed one token at a time."""
  tokens_TxB = jnp.pad(targets_BxT, ((0, 0), (1, 0)))[:, :-1].T
  cache = model.prefill(inputs_BxS, targets_BxT.shape[1])
  _, logits_TxBxV = jax.lax.scan(lambda cache, token_B: model.step(token_B, cache)[::-1], cache, tokens_TxB)
  return logits_TxBxV.swapaxes(0, 1)
