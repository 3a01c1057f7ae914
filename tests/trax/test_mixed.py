"""Attention that is plain up to a length: the lengths are those of the authors' arrays, which are always full.

S source positions and T target positions of the arrays, B batch, V vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import DecodeConfig
from terraformer.data.tokenizer import EOS_ID
from terraformer.decode.decoder import Decoder
from terraformer.decode.shapes import abstract_layerwise
from terraformer.decode.stored import plain
from terraformer.importing import import_bundle
from terraformer.models.parameters import flatten, merge_module, split_module, unflatten

S, T = 48, 32
ALWAYS = 2**31 - 1


@pytest.fixture(params=[47, 60, 80], ids=['below the source', 'between', 'above both'])
def std_length(request):
  return request.param


@pytest.fixture
def decoder(copied, tmp_path, std_length):
  """A model whose chunks hold all positions, so that hashing changes nothing, but scores differ from plain ones."""
  folder = copied('arxiv_lsh')
  text = (folder / 'config.gin').read_text().replace('PureLSHSelfAttention.', 'MixedLSHSelfAttention.')
  text = text.replace('@PureLSHSelfAttention\n', '@MixedLSHSelfAttention\n')
  text = text.replace('@encoder/PureLSHSelfAttention\n', '@encoder/MixedLSHSelfAttention\n')
  (folder / 'config.gin').write_text(f'{text}\nMixedLSHSelfAttention.std_length = {std_length}\n')
  import_bundle(folder, tmp_path / 'bundle')
  return Decoder.open(tmp_path / 'bundle')


def _slow_tokens(bundle, std_length, source, n_tokens):
  """The likeliest tokens: the whole model reads the whole arrays anew for each."""
  blocks = {}
  for (stack, block), length in zip(bundle.model.blocks.items(), (S, S + T), strict=True):
    below = {'full_below': 0, 'plain_below': ALWAYS} if length <= std_length else {'plain_below': 0}
    blocks[stack] = dataclasses.replace(block, attention=dataclasses.replace(block.attention, **below))
  config = dataclasses.replace(bundle.model, **blocks)
  weights = unflatten({name: plain(value) for name, value in flatten(bundle.weights).items()})
  model = merge_module(split_module(abstract_layerwise(config))[0], weights)
  # Later tokens change nothing; if they were padding, a position would not be seen by itself.
  run, tok_e, tok_d = jax.jit(lambda model, *arrays: model(*arrays)), np.zeros((1, S), np.int32), np.ones(T, np.int32)
  tok_e[0, : len(source)] = source
  for at in range(n_tokens):
    logits_BxTxV = run(model, jnp.asarray(tok_e), jnp.asarray(tok_d[None]))
    tok_d[at] = np.asarray(logits_BxTxV)[0, at, 1:].argmax() + 1  # not padding
    if tok_d[at] == EOS_ID:
      return tok_d[:at].tolist()
  return tok_d[:n_tokens].tolist()


def test_texts_are_scored_as_full_arrays_are(decoder, std_length):
  rng = np.random.default_rng(0)
  for n_source, n_tokens in ((5, 6), (47, 6), (20, T)):
    source = rng.integers(2, decoder.bundle.model.vocab_size, n_source).tolist()
    text = ' '.join(map(str, source))
    found = list(decoder.tokens(text, DecodeConfig(max_tokens=n_tokens)))
    assert found == _slow_tokens(decoder.bundle, std_length, source, n_tokens)
