"""A bundle with random weights that writes for seconds, so that there is time to stop it."""

import numpy as np

from terraformer.config import (
  BlockConfig,
  DenseFFConfig,
  DenseOutputConfig,
  DenseProjectionConfig,
  SinusoidPositionsConfig,
  TerraformerConfig,
)
from terraformer.decode.bundle import Content, parameter_shapes, write_bundle

LENGTH = 20_000  # tokens, several seconds on a quiet machine


def write_endless(path, tokenizer, seed=0):
  """Writes the bundle; it reads sources of up to 64 tokens."""
  block = BlockConfig(64, 4, DenseProjectionConfig(), DenseFFConfig(512), None)
  model = TerraformerConfig(
    452, LENGTH, encoder=block, decoder=block, n_encoder_layers=1, n_decoder_layers=2, n_decoder_attentions=1,
    positions=SinusoidPositionsConfig(), output=DenseOutputConfig(),
  )  # fmt: skip
  shapes, rng = parameter_shapes(model), np.random.default_rng(seed)
  content = Content(
    model=model, dtype='float32', tokenizer=tokenizer, inputs_length=64, targets_length=LENGTH, origin={}
  )
  write_bundle(path, content, lambda name: rng.normal(0, 0.1, shapes[name].shape).astype(np.float32))
