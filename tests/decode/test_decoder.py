"""What the bundle writes is what the trained model writes."""

import jax
import numpy as np
import pytest

from terraformer.config import DecodeConfig, UserError
from terraformer.decode.decoder import Decoder
from terraformer.decode.native import engine as native_engine
from terraformer.models.generate import generate
from terraformer.models.make import abstract_model
from terraformer.models.parameters import merge_module, split_module
from terraformer.training import checkpoint

TEXTS = ['Red tree river stone house bird 3.', 'Small hill.', 'Blue road cloud ' * 20]


@pytest.fixture(scope='module')
def decoder(bundle):
  return Decoder.open(bundle)


@pytest.fixture(scope='module')
def trained(finished_run):
  """The training-side model."""
  run, _ = checkpoint.read_run(finished_run, 24)
  return merge_module(split_module(abstract_model(run.model))[0], checkpoint.restore_params(finished_run, 24, run))


@pytest.mark.parametrize('text', TEXTS)
def test_greedy_tokens_are_those_of_the_training_side_model(decoder, trained, text):
  ids = decoder.bundle.tokenizer.encode(text)[:11] + [1]
  inputs_BxS = np.zeros((1, 12), np.int32)
  inputs_BxS[0, : len(ids)] = ids
  expected = np.asarray(
    jax.jit(generate, static_argnums=(2, 3))(trained, inputs_BxS, 6, decoder.bundle.tokenizer.size)
  )[0]
  expected = [int(token) for token in expected if token > 1]
  assert list(decoder.tokens(text, DecodeConfig(max_tokens=6))) == expected
  assert ''.join(decoder.generate(text, DecodeConfig(max_tokens=6))) == decoder.bundle.tokenizer.decode(expected)


def test_a_seed_repeats_its_draws_and_another_draws_otherwise(decoder):
  draw = lambda seed: list(decoder.tokens(TEXTS[0], DecodeConfig(max_tokens=12, temperature=5.0, seed=seed)))  # noqa: E731
  assert draw(1) == draw(1) != draw(2)


def test_lengths_and_statistics(decoder):
  assert list(decoder.tokens(TEXTS[0], DecodeConfig(max_tokens=0))) == []
  tokens = list(decoder.tokens(TEXTS[2], DecodeConfig(max_tokens=3, temperature=5.0)))
  assert len(tokens) <= 3
  assert decoder.stats.input_tokens == 12 and decoder.stats.dropped_tokens > 0
  assert 0 < decoder.stats.first_token_seconds <= decoder.stats.seconds


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    ('  \n', 'the text is empty; this model needs a source'),
    ('a\ud800b', 'expected text, found a lone surrogate at character 1'),
    (b'abc', 'expected text, found bytes'),
  ],
)
def test_what_is_no_text_is_refused(decoder, source, message):
  with pytest.raises(UserError, match=f'input: {message}'):
    next(decoder.generate(source))


def test_no_texts_become_no_texts(decoder):
  assert decoder.generate_batch([]) == []


def test_an_engine_that_does_not_exist_is_named(bundle):
  with pytest.raises(UserError, match="engine: expected auto, native or xla, found 'gpu'"):
    Decoder.open(bundle, engine='gpu')


def test_without_the_library_xla_decodes_and_says_why(bundle, monkeypatch):
  monkeypatch.setattr(native_engine, 'library', _no_library)
  decoder = Decoder.open(bundle)
  ''.join(decoder.generate('Red tree.', DecodeConfig(max_tokens=2)))
  assert decoder.stats.engine == 'XLA (the native engine is not available: it was not built)'
  with pytest.raises(
    UserError, match='--engine=native: the native engine is not available: it was not built; use --engine=xla'
  ):
    Decoder.open(bundle, engine='native')


def _no_library():
  raise OSError('it was not built')
