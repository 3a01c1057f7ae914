"""The recipes of CONTRIBUTING.md, run as they stand."""

import dataclasses
import re
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import BlockConfig, DecodeConfig, DenseProjectionConfig, LanguageModelConfig, UserError
from terraformer.configure import load_configs
from terraformer.data.source import make_source
from terraformer.decode.logits_processors import OF_SAMPLING, process, processors_for
from terraformer.layers.make import make_feed_forward
from terraformer.layers.parameter import facts_of
from terraformer.models.make import make_model
from tests.models import examples

_TEXT = (Path(__file__).parents[1] / 'CONTRIBUTING.md').read_text(encoding='utf-8')
_BLOCKS = re.findall(r'```python\n(.*?)```', _TEXT, re.DOTALL)


@pytest.fixture(scope='module')
def mine():
  """A module of all recipes."""
  module = types.ModuleType('mine')
  exec('\n'.join(_BLOCKS), vars(module))
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sys.modules, 'mine', module)
    yield module


def test_a_recipe_has_at_most_25_lines():
  assert len(_BLOCKS) == 7
  assert max(len([line for line in block.splitlines() if line.strip()]) for block in _BLOCKS) <= 25


def test_the_feed_forward_steps_as_it_computes_and_picks_two_units(mine):
  block = BlockConfig(32, 2, DenseProjectionConfig(), mine.TopTwoFFConfig(64, 8), None, dropout=0.0)
  layer = make_feed_forward(block, key=jax.random.key(0))
  x_BxTxD = jax.random.normal(jax.random.key(1), (2, 5, 32))
  y_BxTxD, units_BxTxMx2 = layer(x_BxTxD)
  assert units_BxTxMx2.shape == (2, 5, 8, 2) and (units_BxTxMx2[..., 0] != units_BxTxMx2[..., 1]).all()
  steps_TxBxD = [layer.step(x_BxD) for x_BxD in x_BxTxD.swapaxes(0, 1)]
  np.testing.assert_allclose(np.stack(steps_TxBxD, 1), y_BxTxD, atol=1e-5)
  assert {facts.rows for facts in facts_of(layer).values() if facts.row_axis} == {2}


def test_the_attention_decodes_as_it_computes_and_sees_a_window(mine):
  block = BlockConfig(24, 2, DenseProjectionConfig(), examples.DENSE_FF, None, 0.0, mine.WindowConfig(window=3))
  config = LanguageModelConfig(20, 64, n_layers=1, decoder=block)
  make = jax.jit(make_model, static_argnums=0)
  model = make(config, key=jax.random.key(0))
  tokens = examples.tokens(0)
  real_BxT = np.asarray(tokens[1]) != 0
  logits_BxTxV = np.asarray(model(*tokens))
  np.testing.assert_allclose(examples.steps(model, *tokens)[real_BxT], logits_BxTxV[real_BxT], atol=1e-4)
  wide = dataclasses.replace(config, decoder=dataclasses.replace(block, attention=mine.WindowConfig(window=64)))
  assert not np.allclose(make(wide, key=jax.random.key(0))(*tokens), logits_BxTxV, atol=1e-3)


def test_the_source_gives_each_example_once_over_all_parts(mine):
  source = make_source(mine.CountingConfig(10))
  whole = list(source.read('train', 0, 1))
  parts = [list(source.read('train', part, 3)) for part in range(3)]
  assert sorted(map(str, whole)) == sorted(map(str, sum(parts, []))) and len(whole) == 10
  assert all(set(example) == {'inputs', 'targets'} for example in whole)


@pytest.mark.parametrize(
  ('make', 'words'),
  [
    (lambda mine: mine.TopTwoFFConfig(64, 1), 'TopTwoFFConfig.block_size: expected at least 2, found 1'),
    (
      lambda mine: mine.TopTwoFFConfig(60, 8),
      r'TopTwoFFConfig.d_ff: expected a multiple of block_size \(8\), found 60',
    ),
    (lambda mine: mine.WindowConfig(window=0), 'WindowConfig.window: expected at least 1, found 0'),
    (lambda mine: mine.WindowConfig(dropout=2.0), 'WindowConfig.dropout: expected a number from 0 to 1, found 2.0'),
  ],
)
def test_a_configuration_refuses_bad_values(mine, make, words):
  with pytest.raises(UserError, match=words):
    make(mine)


def test_the_gin_file_selects_the_recipes_and_bindings_name_the_module(mine, tmp_path):
  (gin,) = re.findall(r'```\n(from __gin__.*?)```', _TEXT, re.DOTALL)
  (tmp_path / 'mine.gin').write_text(gin)
  (binding,) = re.findall(r"--gin_bindings='(mine\..*?)'", _TEXT)
  run, _, _ = load_configs([str(tmp_path / 'mine.gin')], [binding], modules=['mine'])
  assert run.model.decoder.feed_forward == mine.TopTwoFFConfig(d_ff=256)
  assert run.model.encoder.attention == mine.WindowConfig() and run.data.source == mine.CountingConfig()
  assert run.train.steps == 5


def test_the_sampling_rule_keeps_what_is_likely_enough(mine):
  logits_BxV = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05], [0.97, 0.01, 0.01, 0.01]]))
  rule = mine.MinP.from_config(types.SimpleNamespace(min_p=0.25))
  np.testing.assert_array_equal(jnp.isfinite(rule(logits_BxV, None)), [[1, 1, 1, 0], [1, 0, 0, 0]])
  assert mine.MinP.from_config(types.SimpleNamespace(min_p=0.0)) is None


@pytest.mark.parametrize('min_p', [5e-324, 1e-50, 1e-38])
def test_a_tiny_min_p_removes_only_what_is_impossible(mine, min_p):
  rule = mine.MinP.from_config(types.SimpleNamespace(min_p=min_p))
  np.testing.assert_array_equal(jnp.isfinite(rule(jnp.array([[3.0, -jnp.inf, -80.0]]), None)), [[1, 0, 1]])


def test_behind_the_other_rules_it_leaves_what_top_p_adds_up(mine):
  """Before `KeepTop`, this min-p would leave 0.4 and 0.3, of which the first alone has more than half."""
  config = types.SimpleNamespace(**vars(DecodeConfig(temperature=1.0, top_p=0.5)), min_p=0.5)
  logits_1xV = jnp.log(jnp.array([[0.4, 0.3, 0.1, 0.1, 0.1]]))
  kept = {
    order: np.isfinite(process(processors_for(config, order), logits_1xV, None)).sum()
    for order in ((*OF_SAMPLING, mine.MinP), (mine.MinP, *OF_SAMPLING))
  }
  assert list(kept.values()) == [2, 1]
