"""Attention that is plain up to a length: the lengths are those of the authors' arrays, which are always full."""

import gzip
import pickle

import numpy as np
import pytest

from terraformer.config import DecodeConfig
from terraformer.data.tokenizer import EOS_ID
from terraformer.decode.decoder import Decoder
from terraformer.importing import import_bundle
from tests.trax.slow import Spec, gin, logits, reader

S, T = 40, 8  # lengths of the authors' arrays
N_TOKENS = 3


def _decoder(folder, std_length):
  """A model whose chunks hold all positions, so that hashing changes nothing, but scores differ from plain ones.

  Returns:
    Its decoder, and a function (source, target) -> logits TxV of the slow model.
  """
  scores = tuple('plain' if length <= std_length else 'lsh' for length in (S, S + T))
  spec = Spec(16, 2, 30, S, (1, 1), 1, 12, queries=('averaged', 'averaged'), scores=scores)
  rng, weights = np.random.default_rng(0), []

  def draw(*sizes):
    weights.append(rng.normal(0, 0.5, sizes).astype(np.float32))
    return weights[-1]

  logits(spec, draw, [1], [1])
  lines = [line for line in gin(spec, S, T).splitlines() if 'std_length' not in line]
  (folder / 'config.gin').write_text('\n'.join([*lines, f'MixedLSHSelfAttention.std_length = {std_length}']))
  (folder / 'model.pkl.gz').write_bytes(gzip.compress(pickle.dumps({'flat_weights': weights})))
  import_bundle(folder, folder / 'bundle')
  return Decoder.open(folder / 'bundle'), lambda source, target: logits(spec, reader(weights)[0], source, target)


def _slow_tokens(slow_logits, source):
  """The likeliest tokens; the whole model reads all positions anew for each."""
  tokens = []
  while len(tokens) < N_TOKENS:
    token = int(slow_logits(source, [*tokens, EOS_ID])[-1, 1:].argmax()) + 1  # not padding
    if token == EOS_ID:
      break
    tokens.append(token)
  return tokens


@pytest.mark.parametrize(
  'std_length', [S - 1, S + T // 2, S + T], ids=['below the source', 'between', 'as source and target']
)
def test_texts_are_scored_as_full_arrays_are(tmp_path, std_length):
  decoder, slow_logits = _decoder(tmp_path, std_length)
  for n_source in (5, S - 1):
    source = np.random.default_rng(1).integers(2, 30, n_source).tolist()
    found = list(decoder.tokens(' '.join(map(str, source)), DecodeConfig(max_tokens=N_TOKENS)))
    assert found == _slow_tokens(slow_logits, source)
