"""Which tokens may be drawn, and how often they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import DecodeConfig
from terraformer.decode.logits_processors import BlockRepeatedNgrams, GeneratedTokens, KeepTop
from terraformer.decode.sampling import SamplingParams, argmax
from terraformer.models.generate import mask_reserved_ids

LOGITS_1xV = np.array([[9.0, 0.0, 1.0, 2.0]], np.float32)


def _share(config, n_ids=4):
  """How often each token is drawn over 4,000 draws."""
  params, logits_1xV = SamplingParams.from_config(config), mask_reserved_ids(LOGITS_1xV, n_ids)
  draw_at = jax.vmap(lambda index: params.next_token(logits_1xV, index, None)[0])
  return np.bincount(np.asarray(jax.jit(draw_at)(jnp.arange(4000))), minlength=4) / 4000


def test_it_follows_the_softmax_and_never_draws_padding():
  weights = np.exp(np.array([0.0, 1.0, 2.0]) / 2)
  share = _share(DecodeConfig(temperature=2.0))
  assert share[0] == 0
  np.testing.assert_allclose(share[1:], weights / weights.sum(), atol=0.025)  # three standard deviations


def test_temperature_0_takes_the_likeliest_token_that_the_vocabulary_has():
  np.testing.assert_array_equal(_share(DecodeConfig()), [0, 0, 0, 1])
  np.testing.assert_array_equal(_share(DecodeConfig(), n_ids=3), [0, 0, 1, 0])


def test_top_k_and_top_p_leave_out_the_same_tokens_as_their_definition():
  rng = np.random.default_rng(0)
  logits_BxV = rng.normal(size=(20, 30)).astype(np.float32)
  for top_k, top_p in ((0, 0.5), (5, 1.0), (7, 0.8), (1, 0.9), (0, 1e-6)):
    kept_BxV = np.asarray(KeepTop(jnp.int32(top_k), jnp.float32(top_p))(logits_BxV, None)) > -np.inf
    for row, kept in zip(logits_BxV, kept_BxV, strict=True):
      order = np.argsort(-row)[: top_k or None]
      weights = np.exp(row[order])
      n_needed = 1 + int((np.cumsum(weights / weights.sum())[:-1] < top_p).sum())
      assert set(np.flatnonzero(kept)) == set(order[:n_needed])


@pytest.mark.parametrize(
  ('tokens', 'ngram', 'forbidden'),
  [
    ([5, 6, 7, 5, 6], 3, {7}),
    ([5, 6, 7, 5, 6], 2, {7}),
    ([5, 6, 5, 7, 5], 2, {6, 7}),
    ([5, 6], 3, set()),
    ([], 2, set()),
  ],
)
def test_no_ngram_is_completed_twice(tokens, ngram, forbidden):
  generated = GeneratedTokens(jnp.asarray([tokens + [0] * (8 - len(tokens))]), jnp.int32(len(tokens)))
  logits_BxV = np.asarray(BlockRepeatedNgrams(ngram)(jnp.zeros((1, 10)), generated))
  assert set(np.flatnonzero(np.isinf(logits_BxV[0]))) - {0} == forbidden


def test_an_ngram_of_1_writes_no_token_twice():
  generated = GeneratedTokens(jnp.asarray([[5, 6, 0, 0]]), jnp.int32(2))
  assert set(np.flatnonzero(np.isinf(np.asarray(BlockRepeatedNgrams(1)(jnp.zeros((1, 10)), generated))[0]))) == {
    0,
    5,
    6,
  }


@pytest.mark.parametrize('temperature', [5e-324, 1e-45, 1e-38, 1e-30])
def test_a_temperature_of_next_to_nothing_takes_the_likeliest_token(temperature):
  np.testing.assert_array_equal(_share(DecodeConfig(temperature=temperature)), [0, 0, 0, 1])


@pytest.mark.parametrize('temperature', [1e30, 3.4e38, 1.797e308])
def test_an_endless_temperature_draws_evenly(temperature):
  np.testing.assert_allclose(_share(DecodeConfig(temperature=temperature)), [0, 1 / 3, 1 / 3, 1 / 3], atol=0.025)


def test_a_top_p_of_next_to_nothing_takes_the_likeliest_token():
  np.testing.assert_array_equal(_share(DecodeConfig(temperature=1.0, top_p=5e-324)), [0, 0, 0, 1])


def test_more_likeliest_tokens_than_there_are_is_all():
  draws = [_share(DecodeConfig(temperature=1.0, top_k=top_k)) for top_k in (0, 2**63 - 1)]
  np.testing.assert_array_equal(*draws)


@pytest.mark.parametrize('n', [1, 100, 128, 129, 1000, 32_000])
def test_argmax_is_that_of_numpy(n):
  rng = np.random.default_rng(n)
  ties_BxV = rng.integers(0, 5, (4, n)).astype(np.float32)
  for x_BxV in (rng.standard_normal((4, n)).astype(np.float32), ties_BxV, np.full((4, n), -np.inf, np.float32)):
    np.testing.assert_array_equal(jax.jit(argmax)(x_BxV), x_BxV.argmax(-1))
  some_nan_BxV = np.where(rng.random((4, n)) < 0.1, np.nan, ties_BxV)
  assert np.all(np.asarray(jax.jit(argmax)(some_nan_BxV)) < n)
