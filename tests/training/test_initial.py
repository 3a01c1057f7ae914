"""Beginning with another run's parameters: every name is taken, or named."""

import dataclasses

import jax
import numpy as np
import pytest

from terraformer.config import InitFromConfig, UserError
from terraformer.layers.parameter import facts_of
from terraformer.models.make import abstract_model, make_model
from terraformer.models.parameters import flatten, split_module
from terraformer.training import checkpoint
from terraformer.training.initial import take_parameters


@pytest.fixture(scope='module')
def model(finished_run):
  return checkpoint.read_run(finished_run, 24)[0].model


@pytest.fixture(scope='module')
def tokens(finished_run):
  return checkpoint.read_run(finished_run, 24)[1]['vocabulary']['fingerprint']


@pytest.fixture(scope='module')
def facts(model):
  return facts_of(abstract_model(model))


def fresh(model):
  return split_module(make_model(model, key=jax.random.key(5)))[1]


def test_all_parameters_are_taken(finished_run, model, facts, tokens):
  params, report = take_parameters(fresh(model), facts, InitFromConfig(str(finished_run)), 24, tokens)
  stored = flatten(checkpoint.restore_params(finished_run, 24, checkpoint.read_run(finished_run, 24)[0]))
  assert flatten(params).keys() == stored.keys() == set(report.matched)
  for name, array in flatten(params).items():
    np.testing.assert_array_equal(array, stored[name])
  assert str(report).endswith(f'parameters taken ({report.n_matched:,} numbers), 0 fresh, 0 left over')
  assert report.n_matched == sum(array.size for array in stored.values())


def test_another_shape_is_named_unless_it_is_to_be_fresh(finished_run, model, facts, tokens):
  larger = fresh(dataclasses.replace(model, max_length=32))
  with pytest.raises(UserError, match=r'expected decoder_positions.\S+ of float32\[32, 16\], found float32\[16, 16\]'):
    take_parameters(larger, facts, InitFromConfig(str(finished_run)), 24, tokens)
  params, report = take_parameters(
    larger, facts, InitFromConfig(str(finished_run), fresh=('*_positions.*',)), 24, tokens
  )
  assert len(report.fresh) == len(report.left_over) == 2
  for name in report.fresh:
    np.testing.assert_array_equal(flatten(params)[name], flatten(larger)[name])


def test_what_is_missing_or_left_over_is_named_unless_it_may_be(finished_run, model, facts, tokens):
  without = dataclasses.replace(model, decoder=dataclasses.replace(model.decoder, recurrence=None))
  with pytest.raises(UserError, match=r'this model has no parameter decoder.blocks.feed_forward.\S+, found'):
    take_parameters(fresh(without), facts, InitFromConfig(str(finished_run)), 24, tokens)
  names = ('decoder.blocks.feed_forward.*',)
  with pytest.raises(UserError, match='InitFromConfig.left_over: this model has the parameter'):
    take_parameters(fresh(without), facts, InitFromConfig(str(finished_run), left_over=names), 24, tokens)
  extra = flatten(fresh(model)).keys() - flatten(fresh(without)).keys()
  _, report = take_parameters(
    fresh(without), facts, InitFromConfig(str(finished_run), left_over=tuple(extra)), 24, tokens
  )
  assert set(report.left_over) == extra and not report.fresh
  more = {**fresh(model), 'adapter': {'w': np.zeros((2, 2), np.float32)}}
  with pytest.raises(UserError, match=r'expected adapter.w of float32\[2, 2\], found none'):
    take_parameters(more, facts, InitFromConfig(str(finished_run)), 24, tokens)


def test_a_pattern_that_matches_nothing_is_named(finished_run, model, facts, tokens):
  with pytest.raises(UserError, match="fresh: the pattern 'x.*' matches no parameter of this model"):
    take_parameters(fresh(model), facts, InitFromConfig(str(finished_run), fresh=('x.*',)), 24, tokens)


def test_other_tokens_are_named_unless_their_vectors_are_fresh(finished_run, model, facts):
  with pytest.raises(UserError, match=r'expected the vocabulary of this run \(abcabcabcabc\), found [0-9a-f]{12}'):
    take_parameters(fresh(model), facts, InitFromConfig(str(finished_run)), 24, 'abc' * 20)
  patterns = ('embedding.*', 'output.*')
  _, report = take_parameters(fresh(model), facts, InitFromConfig(str(finished_run), fresh=patterns), 24, 'abc' * 20)
  assert {name.split('.')[0] for name in report.fresh} == {'embedding', 'output'}
