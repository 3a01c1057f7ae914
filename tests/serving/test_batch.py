"""The rows of a native batch: how many there are, and what memory they take."""

import functools

import numpy as np
import pytest

from terraformer.config import DecodeConfig
from terraformer.decode.native.engine import NativeEngine
from terraformer.decode.prompts import make_prompts
from terraformer.serving.batch import Batch
from tests.serving.small import SOURCES, random_requests, small_decoder

EVERY_MODEL = ['sparse', 'plain_cross', 'language']


@pytest.fixture(scope='module')
def make_decoder(tokenizer):
  """Returns make(name) -> the decoder of an example model."""
  return functools.cache(lambda name: small_decoder(name, tokenizer))


def make_batch(decoder):
  assert isinstance(decoder.engine, NativeEngine)
  bundle = decoder.bundle
  return Batch(decoder.engine, bundle.model, bundle.tokenizer.size, 'float32', 6, (SOURCES, 64))


def prompts_of(decoder, text, config):
  return make_prompts(decoder.bundle, [text], config)


def state_bytes(batch):
  state = batch._state
  return sum(x.nbytes for x in (state.pages, state.memory, state.rows.numbers))


@pytest.mark.parametrize('name', ['plain_cross', 'language'])
def test_tokens_are_those_of_each_text_alone(name, make_decoder):
  """Texts of different lengths, which cross the borders of pages, in a batch that grows and shrinks."""
  decoder = make_decoder(name)
  batch = make_batch(decoder)
  requests = [request for request in random_requests(10, 1) if list(decoder.tokens(*request))][:5]
  expected = [list(decoder.tokens(*request)) for request in requests]
  found = [[] for _ in requests]

  def step():
    for key, token in batch.step():
      if len(found[key]) < len(expected[key]):
        found[key].append(token)
        if len(found[key]) == len(expected[key]):
          batch.leave(key)

  for key, (text, config) in enumerate(requests):
    batch.join(key, batch.read(prompts_of(decoder, text, config), config))
    step()
  while any(batch._rows):
    step()
  assert found == expected


def test_rows_are_a_power_of_two_and_fewer_when_texts_leave(make_decoder):
  decoder = make_decoder('sparse')
  batch = make_batch(decoder)
  config, sizes = DecodeConfig(max_tokens=60), []
  read = batch.read(prompts_of(decoder, 'Red tree.', config), config)
  for key in range(6):
    batch.join(key, read)
    sizes.append(len(batch._rows))
  assert sizes == [1, 2, 4, 4, 6, 6]
  for key in range(5):
    batch.leave(key)
  for _ in range(55):
    batch.step()
  assert len(batch._rows) == 1
  batch.leave(5)
  assert batch.step() == [] and not any(batch._rows)


@pytest.mark.parametrize('name', EVERY_MODEL)
def test_the_bytes_are_those_of_the_arrays_at_full_length(name, make_decoder):
  decoder = make_decoder(name)
  batch = make_batch(decoder)
  config = DecodeConfig(max_tokens=100)
  prompts = [prompts_of(decoder, 'Red tree ' * n, config) for n in (1, 9, 20)]
  for key, one in enumerate(prompts):
    batch.join(key, batch.read(one, config))
  before = state_bytes(batch)
  assert before <= batch.bytes_of(prompts)
  for _ in range(100):
    batch.step()
  assert before <= state_bytes(batch) == batch.bytes_of(prompts)
  assert batch.bytes_of([]) == 0


def test_warming_up_compiles_all_that_usual_texts_need(make_decoder):
  decoder = make_decoder('sparse')
  batch = make_batch(decoder)
  batch.warm_up()
  compiled = batch._compiled_step._cache_size()
  config = DecodeConfig(max_tokens=60)
  read = batch.read(prompts_of(decoder, 'Red tree ' * 9, config), config)
  for key in range(3):
    batch.join(key, read)
  for _ in range(60):
    np.asarray(batch.step())
  assert batch._compiled_step._cache_size() == compiled
