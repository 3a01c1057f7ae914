"""Every mode of decoding from a bundle beside the same mode computed from the training-side model's logits."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import DecodeConfig
from terraformer.decode import stepping
from terraformer.decode.decoder import Decoder
from terraformer.decode.logits_processors import GeneratedTokens
from terraformer.decode.sampling import SamplingParams
from terraformer.models.generate import mask_reserved_ids
from terraformer.models.make import abstract_model
from terraformer.models.parameters import merge_module, split_module
from terraformer.native.library import why_missing
from terraformer.training import checkpoint

TEXTS = ['Red tree river stone house bird 3.', 'Small hill.', 'Blue road cloud ' * 20]
MODES = {
  'greedy': DecodeConfig(max_tokens=6),
  'temperature': DecodeConfig(max_tokens=6, temperature=3.0, seed=1),
  'top_k': DecodeConfig(max_tokens=6, temperature=3.0, top_k=5, seed=2),
  'top_p': DecodeConfig(max_tokens=6, temperature=3.0, top_p=0.4, seed=3),
  'no_repeat_ngram': DecodeConfig(max_tokens=6, no_repeat_ngram=1),
}


@pytest.fixture(scope='module', params=['xla', 'native'])
def decoder(bundle, request):
  if request.param == 'native' and why_missing():
    pytest.skip(f'no native library: {why_missing()}')
  return Decoder.open(bundle, engine=request.param)


@pytest.fixture(scope='module')
def trained_logits(finished_run, decoder):
  """(text, tokens so far) -> logits of the next one, by the trained model's pass over all positions."""
  run, _ = checkpoint.read_run(finished_run, 24)
  model = merge_module(split_module(abstract_model(run.model))[0], checkpoint.restore_params(finished_run, 24, run))
  call = jax.jit(lambda model, inputs, targets: model(inputs, targets))

  @functools.cache
  def next_logits(text, tokens):
    ids = decoder.bundle.tokenizer.encode(text)[:11] + [1]
    inputs_1xS = np.array([ids + [0] * (12 - len(ids))], np.int32)
    # The next token is not known; any other than padding stands for it, and nothing before it sees it.
    targets_1xT = np.array([[*tokens, 2] + [0] * (6 - len(tokens))], np.int32)
    return np.asarray(call(model, inputs_1xS, targets_1xT))[0, len(tokens)]

  return next_logits


@pytest.mark.parametrize('text', TEXTS)
@pytest.mark.parametrize('mode', MODES)
def test_the_tokens_are_those_of_the_training_side_model(decoder, trained_logits, text, mode):
  config, expected = MODES[mode], []
  while len(expected) < 6 and 1 not in expected:
    generated = GeneratedTokens(jnp.asarray([expected + [0] * (6 - len(expected))]), jnp.int32(len(expected)))
    logits_1xV = trained_logits(text, tuple(expected))[None]
    logits_1xV = mask_reserved_ids(logits_1xV, decoder.bundle.tokenizer.size)
    expected.append(int(SamplingParams.from_config(config).next_token(logits_1xV, len(expected), generated)[0]))
  assert list(decoder.tokens(text, config)) == [token for token in expected if token != 1]


def _search(next_logits, n_ids, n_beams, n_tokens, penalty):
  """Beam search as it is written down, over log-probabilities of whole sequences."""
  live, ended = [((), 0.0)], []
  for _ in range(n_tokens):
    options = []
    for tokens, score in live:
      log_V = np.asarray(jax.nn.log_softmax(mask_reserved_ids(next_logits(tokens)[None], n_ids)[0]))
      options += [((*tokens, token), score + log_V[token]) for token in range(n_ids)]
    options.sort(key=lambda option: -option[1])
    ended += [option for option in options[:n_beams] if option[0][-1] == 1]
    live = [option for option in options if option[0][-1] != 1][:n_beams]
    if len(ended) >= n_beams:
      break
  else:
    ended += [((*tokens, 1), score) for tokens, score in live]
  return max(ended, key=lambda option: option[1] / ((5 + len(option[0])) / 6) ** penalty)[0][:-1]


@pytest.mark.parametrize(('n_beams', 'penalty'), [(2, 0.6), (4, 0.0), (4, 1.5)])
def test_beam_search_finds_what_its_definition_does(decoder, trained_logits, n_beams, penalty):
  for text in TEXTS:
    expected = _search(functools.partial(trained_logits, text), decoder.bundle.tokenizer.size, n_beams, 6, penalty)
    config = DecodeConfig(max_tokens=6, beams=n_beams, length_penalty=penalty)
    assert tuple(decoder.tokens(text, config)) == expected


def test_one_beam_is_greedy_decoding(decoder):
  for text in TEXTS:
    assert list(decoder._search(text, MODES['greedy'])) == list(decoder.tokens(text, MODES['greedy']))


@pytest.mark.parametrize('mode', [*MODES, 'beams'])
def test_a_batch_gives_what_its_texts_give_alone(decoder, mode):
  config = MODES.get(mode, DecodeConfig(max_tokens=6, beams=3))
  alone = [''.join(decoder.generate(text, config)) for text in TEXTS]
  assert decoder.generate_batch(TEXTS, config) == alone
  assert any(alone)


def test_a_cache_that_grows_gives_what_a_large_one_gives(decoder, monkeypatch):
  config = DecodeConfig(max_tokens=12, temperature=5.0)
  large = list(decoder.tokens(TEXTS[0], config))
  monkeypatch.setattr(stepping, 'FIRST_ROOM', 2)
  assert list(decoder.tokens(TEXTS[0], config)) == large
  assert len(large) > 4


@pytest.mark.parametrize('dtype', ['bfloat16', 'int8'])
def test_a_smaller_cache_changes_little(decoder, dtype):
  steps = [
    list(itertools.islice(decoder._token_rows([TEXTS[0]], DecodeConfig(max_tokens=1, cache_dtype=each)), 1))
    for each in ('float32', dtype)
  ]
  np.testing.assert_array_equal(*steps)


def test_a_stop_string_ends_the_text(decoder):
  config = DecodeConfig(max_tokens=12, temperature=5.0)
  whole = ''.join(decoder.generate(TEXTS[0], config))
  stop = whole[4:6]
  stopped = DecodeConfig(max_tokens=12, temperature=5.0, stop=(stop,))
  assert ''.join(decoder.generate(TEXTS[0], stopped)) == whole[: whole.index(stop)]
  assert decoder.generate_batch([TEXTS[0]], stopped) == [whole[: whole.index(stop)]]
