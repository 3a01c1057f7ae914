"""A whole model reads 1,048,576 tokens at once, in its own process, so its memory can be measured."""

import json
import subprocess
import sys
import textwrap

import pytest

LENGTH = 2**20

FORWARD = f"""
import json, resource, time
import jax, jax.numpy as jnp
from terraformer.config import *
from terraformer.models.make import make_model
from terraformer.training.loss import model_losses
from tests.losses import mean_loss

block = BlockConfig(
  64, 2, SparseProjectionConfig(4, share_qk=True), SparseFFConfig(256, 16, 8), SRUConfig(8), dropout=0.0,
  attention=LSHAttentionConfig(chunk_length=128, n_rounds=2), ff_chunk=4096,
)
config = LanguageModelConfig(
  512, {LENGTH}, positions=SinusoidPositionsConfig(), loss_chunk=4096, n_layers=2, decoder=block
)
model = jax.jit(lambda key: make_model(config, key=key))(jax.random.key(0))
targets = jax.random.randint(jax.random.key(1), (1, {LENGTH}), 1, 512)
begun = time.time()
no_inputs = jnp.zeros((1, 0), jnp.int32)
loss = jax.jit(lambda model, targets: mean_loss(model_losses(model, no_inputs, targets)))(model, targets)
print(json.dumps({{
  'loss': float(loss),
  'seconds': time.time() - begun,
  'bytes': 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
}}))
"""


@pytest.mark.slow
def test_a_million_tokens_take_less_than_16_gb():
  run = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(FORWARD)], capture_output=True, text=True, check=True, timeout=1800
  )
  result = json.loads(run.stdout)
  print(result)
  assert result['bytes'] < 16e9
  # An untrained model on random targets from 512 tokens has a loss a little above ln 512 = 6.2 nats.
  assert 6 < result['loss'] < 12
