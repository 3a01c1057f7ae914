"""The facts about parameters, in every model of `examples`, stacked and layerwise."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from terraformer.config import UserError
from terraformer.layers.parameter import Facts, add_facts, facts_of, parameter
from terraformer.models.make import layerwise
from terraformer.models.parameters import flatten, split_module, stacked_name, stacks_of
from tests.models.examples import CONFIGS, abstract

PARTS = {
  'embedding',
  'positions',
  'QKV',
  'attention output',
  'controller',
  'feed-forward',
  'recurrence',
  'merging streams',
  'normalization',
  'output layer',
}
by_config = pytest.mark.parametrize('name', CONFIGS)


def _forms(name):
  stacked = abstract(CONFIGS[name])
  return stacked, jax.eval_shape(layerwise, stacked)


@by_config
def test_every_parameter_has_all_facts(name):
  for model in _forms(name):
    facts = facts_of(model)
    shapes = flatten(split_module(model)[1])
    assert facts.keys() == shapes.keys()
    for path, each in facts.items():
      assert len(each.axes) == len(shapes[path].shape), path
      assert each.group in PARTS and each.stack in ('encoder', 'decoder', None), path
      assert each.row_axis is None or -len(each.axes) <= each.row_axis < 0, path
      assert not each.stays_float32 or each.row_axis is not None, path


@by_config
def test_a_separate_layer_has_the_facts_that_it_has_in_its_stack(name):
  stacked, separate = map(facts_of, _forms(name))
  found = {}
  for path, each in separate.items():
    whole, layer = stacked_name(path, each)
    expected = stacked[whole]
    assert (layer is None) == (each.loop is None)
    assert expected.axes == (('layers',) if each.loop else ()) + each.axes
    assert {**vars(expected), 'axes': None} == {**vars(each), 'axes': None}, path
    found.setdefault(whole, []).append(layer)
  assert found.keys() == stacked.keys()
  for whole, layers in found.items():
    assert layers == ([None] if stacked[whole].loop is None else [*range(len(layers))])


@by_config
def test_the_stacks_are_the_modules_with_an_axis_of_layers(name):
  model = abstract(CONFIGS[name])
  for path in stacks_of(facts_of(model)):
    stack, loop = path.split('.')
    assert getattr(getattr(model, stack), loop) is not None


@by_config
def test_a_step_reads_no_encoder_parameters_and_no_layers_for_its_keys(name):
  facts = facts_of(abstract(CONFIGS[name]))
  not_read = {path for path, each in facts.items() if not each.in_step}
  assert {path for path, each in facts.items() if each.stack == 'encoder'} <= not_read
  rest = {path for path in not_read if facts[path].stack != 'encoder'}
  assert all(facts[path].group == 'QKV' or path.startswith('merge') for path in rest)
  assert bool([path for path in rest if 'cross' in path]) == ('cross' in name)


@by_config
def test_weight_decay_applies_to_all_but_biases_and_normalization(name):
  for path, each in facts_of(abstract(CONFIGS[name])).items():
    is_bias = 'bias' in path.split('.')[-1]
    assert each.decays == (not is_bias and 'scale' not in path.split('.')[-1]), path


class _Layer(nnx.Module):
  def __init__(self, value, known=None):
    self.known = parameter(jnp.zeros((2, 3)), ('embed', None), group=known)
    self.inner = nnx.List([value])


@pytest.mark.parametrize('value', [nnx.Param(jnp.zeros(3)), jnp.zeros(3)], ids=['variable', 'array'])
def test_a_parameter_without_facts_is_an_error_with_its_path(value):
  layer = _Layer(value, 'QKV')
  with pytest.raises(UserError, match=r'^inner.0: the parameter carries no facts; make it with'):
    facts_of(layer)


def test_a_parameter_without_a_group_is_an_error_with_its_path():
  with pytest.raises(UserError, match=r'^inner.0: the parameter has no group; .* make_feed_forward, .* `group=`$'):
    facts_of(_Layer(parameter(jnp.zeros(3), (None,)), 'QKV'))


def test_a_path_without_a_parameter_is_an_error():
  facts = facts_of(_Layer(parameter(jnp.zeros(3), (None,), group='QKV'), 'QKV'))
  with pytest.raises(UserError, match=r'^inner.1: the model has no such parameter'):
    facts['inner.1']


def test_facts_are_added_only_where_a_parameter_has_none():
  layer = _Layer(parameter(jnp.zeros(3), (None,), decays=False), 'controller')
  add_facts(layer, group='feed-forward', stack='decoder', in_step=False)
  add_facts(layer, group='QKV', stack='encoder')
  assert facts_of(layer) == {
    'known': Facts(('embed', None), group='controller', stack='decoder', in_step=False),
    'inner.0': Facts((None,), decays=False, group='feed-forward', stack='decoder', in_step=False),
  }
