"""A mechanism defined in a user's module, outside the package."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from terraformer import describe
from terraformer.cli import load_configs, main
from terraformer.config import AttentionConfig, BlockConfig, FullAttentionConfig, UserError, from_dict, to_dict
from terraformer.layers.make import make_attention, maker
from terraformer.layers.parameter import facts_of
from terraformer.models.make import make_model
from tests.models import examples

MINE = """
import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from terraformer.config import AttentionConfig, FullAttentionConfig
from terraformer.layers.attention import Attention
from terraformer.layers.parameter import parameter


class Sharpened(Attention):
  def __init__(self, config, causal, *, key):
    super().__init__(dataclasses.replace(config, attention=FullAttentionConfig()), causal, key=key)
    self.sharpness = parameter(jnp.full(1, config.attention.sharpness), (None,), decays=False)

  def _attend(self, q_BxTxHxK, *rest, **options):
    return super()._attend(q_BxTxHxK * self.sharpness[...], *rest, **options)

  def read(self, q_BxHxK, cache, filled):
    return super().read(q_BxHxK * self.sharpness[...], cache, filled)


@dataclasses.dataclass(frozen=True)
class SharpConfig(AttentionConfig):
  made_by: ClassVar = Sharpened

  sharpness: float = 1.0
"""
GIN = """
from __gin__ import dynamic_registration
import mine_of_a_test
from terraformer import config

config.RunConfig.model = @config.LanguageModelConfig()
config.BlockConfig.attention = @mine_of_a_test.SharpConfig()
mine_of_a_test.SharpConfig.sharpness = 2.0
config.BlockConfig.d_model = 24
config.BlockConfig.n_heads = 3
config.SparseProjectionConfig.n_modules = 4
config.SparseFFConfig.d_ff = 64
config.LanguageModelConfig.max_length = 1024
config.LanguageModelConfig.vocab_size = 20
"""


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """Returns the configuration of a language model with attention from a user's module."""
  folder = tmp_path_factory.mktemp('mine')
  (folder / 'mine_of_a_test.py').write_text(MINE)
  (folder / 'mine.gin').write_text(GIN)
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(folder)
    yield load_configs([str(folder / 'mine.gin')], [])[0].model


@pytest.mark.parametrize('as_name', [None, 'other'])
def test_a_binding_may_name_a_module_that_is_given(model, tmp_path, as_name):
  renamed = GIN.replace('mine_of_a_test', as_name or 'mine_of_a_test')
  file = tmp_path / 'named.gin'
  file.write_text(renamed.replace('import other', 'import mine_of_a_test as other'))
  binding = 'mine_of_a_test.SharpConfig.sharpness = 3.0'
  run, _, text = load_configs([str(file)], [binding], modules=['mine_of_a_test'])
  assert run.model.decoder.attention.sharpness == 3.0
  assert load_configs([], [], text)[0] == run


def test_a_binding_of_a_module_that_nothing_uses_is_an_error(model):
  binding = 'mine_of_a_test.SharpConfig.sharpness = 3.0'
  with pytest.raises(UserError, match='this configuration does not use mine_of_a_test.SharpConfig.sharpness'):
    load_configs([], [binding], modules=['mine_of_a_test'])


def test_a_module_that_no_binding_names_is_not_stored(model):
  _, _, text = load_configs([], ['config.TrainConfig.steps = 3'], modules=['mine_of_a_test'])
  assert 'mine_of_a_test' not in text


def test_a_command_gives_its_modules_to_its_bindings(model, capsys):
  flags = ['--gin_bindings=config.RunConfig.model = @config.LanguageModelConfig()', '--context=8', '--json']
  flags += ['--gin_bindings=config.BlockConfig.attention = @mine_of_a_test.SharpConfig()']
  assert main(['describe', '--module=mine_of_a_test', *flags]) == 0
  assert 'decoder QKV' in json.loads(capsys.readouterr().out)['model']['parts']


def test_gin_makes_a_model_with_it_whose_steps_equal_call(model):
  made = jax.jit(make_model, static_argnums=0)(model, key=jax.random.key(0))
  assert type(made.decoder.blocks.attentions[0].attention).__name__ == 'Sharpened'
  tokens = examples.tokens(0)
  real_BxT = np.asarray(tokens[1]) != 0
  expected_BxTxV = np.asarray(made(*tokens))
  np.testing.assert_allclose(examples.steps(made, *tokens)[real_BxT], expected_BxTxV[real_BxT], atol=1e-4)
  plain = dataclasses.replace(model, decoder=dataclasses.replace(model.decoder, attention=FullAttentionConfig()))
  assert not np.allclose(make_model(plain, key=jax.random.key(0))(*tokens), expected_BxTxV, atol=1e-3)


def test_its_parameters_have_facts_and_are_in_the_table_of_costs(model):
  facts = facts_of(examples.abstract(model))
  (sharpness,) = (each for path, each in facts.items() if path.endswith('sharpness'))
  assert (sharpness.group, sharpness.stack, sharpness.loop, sharpness.decays) == ('QKV', 'decoder', 'blocks', False)
  assert 'decoder QKV' in describe.as_table(model, 8)


def test_it_is_stored_under_its_importable_name_and_read_back(model):
  stored = json.loads(json.dumps(to_dict(model)))
  assert stored['decoder']['attention'] == {'kind': 'mine_of_a_test:SharpConfig', 'sharpness': 2.0}
  assert stored['decoder']['feed_forward']['kind'] == 'SparseFFConfig'
  assert from_dict(stored) == model


def test_without_its_module_the_error_names_the_module_to_pass():
  with pytest.raises(UserError, match=r"'not_imported:SharpConfig' is defined outside .* --module=not_imported$"):
    from_dict(to_dict(BlockConfig()) | {'attention': {'kind': 'not_imported:SharpConfig'}})


def test_a_config_that_names_no_layer_is_an_error():
  @dataclasses.dataclass(frozen=True)
  class NamelessConfig(AttentionConfig):
    pass

  with pytest.raises(UserError, match='NamelessConfig does not say what it makes; set NamelessConfig.made_by'):
    make_attention(BlockConfig(attention=NamelessConfig()), True, key=jax.random.key(0))


@pytest.mark.parametrize('name', ['no_such_module_here:Layer', 'terraformer.layers.attention:Attentoin', 'Attention'])
def test_a_layer_name_that_cannot_be_imported_is_an_error(name):
  @dataclasses.dataclass(frozen=True)
  class LostConfig(AttentionConfig):
    made_by = name

  with pytest.raises(UserError, match='LostConfig.made_by: cannot import'):
    maker(LostConfig())


def test_the_base_class_of_a_family_is_not_a_config():
  with pytest.raises(UserError, match='expected one of the kinds of AttentionConfig, found AttentionConfig'):
    AttentionConfig()
