"""The decoder with every kind of model and attention, and with caches that grow as they are filled."""

import types

import jax
import numpy as np
import pytest

from terraformer.config import DecodeConfig
from terraformer.decode import stepping
from terraformer.decode.bundle import Bundle
from terraformer.decode.decoder import Decoder
from terraformer.models.generate import generate
from terraformer.models.make import layerwise
from terraformer.models.parameters import split_module
from tests.models.examples import CONFIGS, model

MODELS = ['lsh', 'cross', 'lsh_language']
# A digit is a token.
DIGITS = types.SimpleNamespace(encode=lambda text: [int(digit) + 5 for digit in text], size=20)
TEXTS = ['31415926', '2718', '5']


@pytest.mark.parametrize('name', MODELS)
def test_tokens_are_those_of_the_stacked_model_alone_and_in_a_batch(name, monkeypatch):
  monkeypatch.setattr(stepping, 'FIRST_ROOM', 2)
  config = CONFIGS[name]
  trained = model(config)
  weights = jax.tree.map(np.asarray, split_module(layerwise(trained))[1])
  decoder = Decoder(Bundle(config, weights, DIGITS, inputs_length=9, targets_length=6, origin={}))
  inputs_BxS = np.zeros((3, 9), np.int32)
  for row, text in zip(inputs_BxS, TEXTS, strict=True):
    row[: len(text) + 1] = [*DIGITS.encode(text), 1]
  n_tokens = min(6, config.room_behind(9))
  greedy_BxT = np.asarray(jax.jit(generate, static_argnums=(2, 3))(trained, inputs_BxS, n_tokens, 20))
  expected = [[token for token in row if token > 1] for row in greedy_BxT.tolist()]
  limit = DecodeConfig(max_tokens=n_tokens)
  assert [list(decoder.tokens(text, limit)) for text in TEXTS] == expected
  rows = np.array(list(decoder._token_rows(TEXTS, limit))).T.tolist()
  assert [row[: len(tokens)] for row, tokens in zip(rows, expected, strict=True)] == expected
