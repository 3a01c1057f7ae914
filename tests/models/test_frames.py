"""The depth of a traceback: the package's functions from a stack to a feed-forward layer, both included."""

import traceback
from pathlib import Path

import jax
import pytest

import terraformer
from terraformer import config as c
from terraformer.layers.parameter import facts_of
from terraformer.layers.sparse_ff import SparseFF
from terraformer.models.make import abstract_model
from terraformer.models.parameters import split_module
from terraformer.training.by_layer import ByLayer
from terraformer.training.optimizer import make_optimizer, make_schedule
from terraformer.training.step import make_eval_step, make_train_step
from tests.models.examples import block

PACKAGE = Path(terraformer.__file__).parent
SCHEDULE = c.RsqrtScheduleConfig(0.1, 2)
RESIDUALS = {
  'keeping': c.PlainResidualConfig(keep_activations=True),
  'rematerialized': c.PlainResidualConfig(),
  'reversible': c.ReversibleResidualConfig(),
  'forgetful': c.ReversibleResidualConfig(forget_every=1),
  'exact': c.ReversibleResidualConfig(fixed_point=True),
}
MOST = 8
OPTIMIZERS = {'after': c.AdamWConfig(SCHEDULE), 'inside': c.AdafactorConfig(SCHEDULE)}
BATCH = {name: jax.ShapeDtypeStruct((2, 5), int) for name in ('inputs', 'targets')}


class _ReachedError(Exception):
  pass


@pytest.fixture
def depth(monkeypatch):
  """Returns a function that traces a step and names the functions from a stack to the feed-forward layer."""

  def raise_it(*_, **__):
    raise _ReachedError

  monkeypatch.setattr(SparseFF, '__call__', raise_it)

  def find(step, *arguments):
    with pytest.raises(_ReachedError) as caught:
      jax.eval_shape(step, *arguments)
    frames = traceback.extract_tb(caught.value.__traceback__)
    names = [
      (Path(frame.filename).name, frame.name) for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)
    ]
    first = next(index for index, (_, name) in enumerate(names) if 'hidden' in name) + 1
    return [*names[first:], ('sparse_ff.py', '__call__')]  # which this test replaced

  return find


def _model(residual):
  return abstract_model(c.LanguageModelConfig(20, 16, decoder=block(), residual=RESIDUALS[residual]))


@pytest.mark.parametrize('residual', RESIDUALS)
@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_a_layer_is_trained_at_most_eight_functions_below_its_stack(depth, residual, optimizer):
  model = _model(residual)
  structure, params = split_module(model)
  optimizer = make_optimizer(OPTIMIZERS[optimizer], facts_of(model))
  step = make_train_step(structure, optimizer, make_schedule(SCHEDULE), jax.random.key(0))
  state = {'params': params, 'optimizer': jax.eval_shape(optimizer.init, params), 'step': 0}
  found = depth(step, state, BATCH)
  # One more if sublayers are compiled in isolation.
  assert found[0][1] == '__call__' and len(found) <= MOST + (residual == 'exact'), found
  updates = isinstance(optimizer, ByLayer) and residual in ('reversible', 'exact')
  assert (found[0][0] == 'backwards.py') == updates


@pytest.mark.parametrize('residual', RESIDUALS)
def test_a_layer_is_evaluated_at_most_eight_functions_below_its_stack(depth, residual):
  structure, params = split_module(_model(residual))
  found = depth(make_eval_step(structure), params, BATCH)
  assert found[0] == ('stack.py', '__call__') and len(found) <= MOST, found
