"""Rows with their own settings choose what a text with the same settings chooses alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import DecodeConfig
from terraformer.decode.logits_processors import GeneratedTokens
from terraformer.decode.sampling import SamplingParams
from terraformer.models.generate import mask_reserved_ids
from terraformer.serving.row_sampling import RowSampling

N_IDS, SLOTS, STEPS = 300, 64, 40
CONFIGS = [
  DecodeConfig(),
  DecodeConfig(temperature=0.7, seed=3),
  DecodeConfig(temperature=1.5, top_k=5, seed=(1 << 32) - 1),
  DecodeConfig(temperature=0.9, top_p=0.6, seed=8),
  DecodeConfig(temperature=1e-40, top_k=1 << 40, top_p=0.3),
  DecodeConfig(no_repeat_ngram=1),
  DecodeConfig(no_repeat_ngram=2, temperature=0.2, seed=5),
  DecodeConfig(no_repeat_ngram=3),
  DecodeConfig(no_repeat_ngram=1 << 40),
]


@pytest.fixture(scope='module')
def logits():
  # Peaked, and with few different rows, so that n-grams do repeat.
  rng = np.random.default_rng(0)
  steps = rng.normal(0, 3, (4, N_IDS + 20))[rng.integers(0, 4, (STEPS, len(CONFIGS)))]
  return [mask_reserved_ids(jnp.asarray(logits_BxV, jnp.float32), N_IDS) for logits_BxV in steps]


@functools.partial(jax.jit, static_argnums=0)
def choose(next_token, params, *arguments):
  return next_token(params, *arguments)


def alone(config, logits, row, n_steps=STEPS):
  """The tokens that a text with this config chooses from the logits of a row."""
  params = SamplingParams.from_config(config)
  generated, tokens = GeneratedTokens.empty(1, STEPS) if config.no_repeat_ngram else None, []
  for index, logits_BxV in enumerate(logits[:n_steps]):
    token_B = choose(SamplingParams.next_token, params, logits_BxV[row : row + 1], jnp.int32(index), generated)
    generated = generated and generated.append(token_B)
    tokens.append(int(token_B[0]))
  return tokens


def test_rows_choose_what_each_chooses_alone(logits):
  rows = jax.tree.map(lambda *x: jnp.stack(x), *map(RowSampling.from_config, CONFIGS))
  # The second half of the rows begin later, so that rows are of different ages.
  n_rows = len(CONFIGS)
  late_B = np.where(np.arange(n_rows) < n_rows // 2, 0, 7)
  generated_BxT, found = np.full((n_rows, SLOTS), 9, np.int32), [[] for _ in CONFIGS]
  for index in range(STEPS):
    index_B = np.maximum(index - late_B, 0)
    logits_BxV = jnp.stack([logits[at][row] for row, at in enumerate(index_B)])
    next_B = np.asarray(choose(RowSampling.next_token, rows, logits_BxV, jnp.asarray(index_B), generated_BxT.copy()))
    for row in np.flatnonzero(index >= late_B):
      generated_BxT[row, index_B[row]] = next_B[row]
      found[row].append(int(next_B[row]))
  for row, config in enumerate(CONFIGS):
    assert found[row] == alone(config, logits, row, len(found[row]))


def test_blocked_sequences_do_occur_without_the_block(logits):
  """Otherwise the test above would say nothing about them."""
  tokens = alone(DecodeConfig(), logits, 7)
  assert len({tuple(tokens[at : at + 3]) for at in range(STEPS - 2)}) < STEPS - 2
  assert tokens != alone(CONFIGS[7], logits, 7)
