"""One optimiser step: in parts as in one."""

import logging
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from terraformer import config as c
from terraformer.layers.parameter import facts_of
from terraformer.models.make import make_model
from terraformer.models.parameters import flatten, split_module
from terraformer.training.optimizer import make_optimizer, make_schedule
from terraformer.training.step import make_eval_step, make_probe_step, make_sample_step, make_train_step
from tests.models.examples import CONFIGS, abstract

# Nothing here is drawn at random, since parts of a batch draw otherwise than the whole.
FF = c.SparseFFConfig(32, 8, 4, hard_probability=1.0, temperature=0.0)
BLOCK = c.BlockConfig(16, 2, c.SparseProjectionConfig(4), FF, dropout=0.0)
MODEL = c.TerraformerConfig(40, 16, n_encoder_layers=1, n_decoder_layers=1, encoder=BLOCK, decoder=BLOCK)


@pytest.fixture(scope='module')
def results():
  structure, params = split_module(make_model(MODEL, key=jax.random.key(0)))
  optimizer = optax.sgd(1.0)  # parameters then differ by as much as their gradients
  rng = np.random.default_rng(0)
  batch = {'inputs': rng.integers(1, 40, (8, 9)), 'targets': rng.integers(1, 40, (8, 7))}
  batch['targets'][:3, 2:] = 0  # parts have different numbers of tokens
  state = {'params': params, 'optimizer': optimizer.init(params), 'step': 0}
  found = {}
  for parts in (1, 2, 4):
    step = make_train_step(structure, optimizer, optax.constant_schedule(1.0), jax.random.key(1), parts)
    found[parts] = jax.jit(step)(state, batch)
  return params, found


@pytest.mark.parametrize('parts', [2, 4])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(results, parts):
  _, found = results
  whole, other = (flatten(found[n][0]['params']) for n in (1, parts))
  for name, array in whole.items():
    np.testing.assert_allclose(other[name], array, atol=2e-6, err_msg=name)


@pytest.mark.parametrize('parts', [2, 4])
def test_its_metrics_are_those_of_the_whole(results, parts):
  one, other = (results[1][n][1].compute() for n in (1, parts))
  for name in one:
    np.testing.assert_allclose(other[name], one[name], rtol=1e-5)


def test_gradient_norms_by_part_make_up_the_whole(results):
  params, found = results
  state, metrics, norms = found[1]
  assert norms['decoder'].shape == (1,) and norms['embedding'].shape == ()
  assert set(norms) == set(params)
  whole = np.sqrt(sum(np.square(np.asarray(value)).sum() for value in norms.values()))
  np.testing.assert_allclose(whole, metrics.compute()['gradient_norm'], rtol=1e-5)
  moved = flatten({'output': jax.tree.map(np.subtract, params['output'], state['params']['output'])})
  np.testing.assert_allclose(np.sqrt(sum((x**2).sum() for x in moved.values())), norms['output'], rtol=1e-3)


def shapes(packed):
  names = ['inputs', 'targets', *(['inputs_segments', 'targets_segments'] if packed else [])]
  return {name: jax.ShapeDtypeStruct((4, 9 if 'inputs' in name else 7), jnp.int32) for name in names}


def trace(kind, model, batch):
  """Traces one of the steps of a run as `train.loop` makes them."""
  structure, params = split_module(model)
  if kind == 'eval':
    return jax.eval_shape(make_eval_step(structure), params, batch)
  if kind == 'probe':
    return jax.eval_shape(make_probe_step(structure), params, batch)
  if kind == 'sample':
    return jax.eval_shape(make_sample_step(structure, 3, 20), params, batch['inputs'])
  config = c.AdamWConfig() if 'AdamW' in kind else c.AdafactorConfig()
  optimizer, schedule = make_optimizer(config, facts_of(model)), make_schedule(config.schedule)
  state = {'params': params, 'optimizer': jax.eval_shape(optimizer.init, params), 'step': jnp.int32(0)}
  step = make_train_step(structure, optimizer, schedule, jax.random.key(1), 2 if kind == 'train in parts' else 1)
  return jax.eval_shape(step, state, batch)


@pytest.mark.parametrize('kind', ['train', 'train in parts', 'train with AdamW', 'eval', 'probe', 'sample'])
@pytest.mark.parametrize(('name', 'packed'), [('sparse', True), ('lsh_language', False)])
def test_tracing_a_step_warns_of_nothing(kind, name, packed, caplog):
  absl = logging.getLogger('absl')
  absl.addHandler(caplog.handler)  # its records may not reach the root
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      trace(kind, abstract(CONFIGS[name]), shapes(packed))
  finally:
    absl.removeHandler(caplog.handler)
  assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
