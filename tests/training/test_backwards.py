"""Layers updated inside the backward pass, beside the same optimiser after it, with every mechanism on."""

import jax
import numpy as np
import optax
import pytest

from terraformer import config as c
from terraformer.layers.parameter import facts_of
from terraformer.models.make import abstract_model, make_model
from terraformer.models.parameters import split_module
from terraformer.training.optimizer import make_optimizer, make_schedule
from terraformer.training.step import make_train_step

LSH = c.LSHAttentionConfig(chunk_length=4, n_rounds=2, n_buckets=(4,), full_below=0)
SPARSE = (c.SparseProjectionConfig(8, share_qk=True), c.SparseFFConfig(64, 8, 4), c.SRUConfig(4))
DECODER = c.BlockConfig(16, 8, *SPARSE, attention=LSH, ff_chunk=5)
ENCODER = c.BlockConfig(16, 2, c.DenseProjectionConfig(), c.DenseFFConfig(16), recurrence=None)
MODEL = c.TerraformerConfig(
  40, 12, n_encoder_layers=2, n_decoder_layers=3, encoder=ENCODER, decoder=DECODER, loss_chunk=3
)
DENSE = c.BlockConfig(64, 2, c.DenseProjectionConfig(), c.DenseFFConfig(256), recurrence=None)
SCHEDULE = c.RsqrtScheduleConfig(0.1, 2)
FACTS = facts_of(abstract_model(MODEL))
INSIDE = make_optimizer(c.AdafactorConfig(SCHEDULE, factor_from=8), FACTS)
# The step knows by its type that an optimiser takes layer by layer; this one hides it.
AFTER = optax.GradientTransformation(INSIDE.init, INSIDE.update)


def _step(structure, optimizer):
  return jax.jit(make_train_step(structure, optimizer, make_schedule(SCHEDULE), jax.random.key(1)), donate_argnums=0)


@pytest.fixture(scope='module')
def both():
  """State, metrics and norms after two steps, updated inside the backward pass and after it."""
  rng = np.random.default_rng(0)
  batch = {'inputs': rng.integers(1, 40, (4, 9)), 'targets': rng.integers(1, 40, (4, 7))}
  batch['inputs'][::2, 5:] = 0
  results = []
  for optimizer in (INSIDE, AFTER):
    structure, params = split_module(make_model(MODEL, key=jax.random.key(0)))
    step = _step(structure, optimizer)
    state = {'params': params, 'optimizer': optimizer.init(params), 'step': 0}
    for _ in range(2):
      state, metrics, norms = step(state, batch)
    results.append((state, metrics.compute(), norms))
  return results


@pytest.mark.parametrize('what', range(3), ids=['state', 'metrics', 'norms'])
def test_it_makes_no_difference_whether_layers_are_updated_inside_the_backward_pass(both, what):
  inside, after = (jax.tree_util.tree_flatten_with_path(result[what])[0] for result in both)
  for (path, one), (same_path, other) in zip(inside, after, strict=True):
    assert path == same_path
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7, err_msg=jax.tree_util.keystr(path))


def _temporary_bytes(n_layers, inside):
  model = abstract_model(c.LanguageModelConfig(64, 8, n_layers=n_layers, decoder=DENSE))
  structure, params = split_module(model)
  optimizer = make_optimizer(c.AdafactorConfig(SCHEDULE, factor_from=8), facts_of(model))
  if not inside:
    optimizer = optax.GradientTransformation(optimizer.init, optimizer.update)
  state = {'params': params, 'optimizer': jax.eval_shape(optimizer.init, params), 'step': jax.ShapeDtypeStruct((), int)}
  batch = {'inputs': jax.ShapeDtypeStruct((2, 0), int), 'targets': jax.ShapeDtypeStruct((2, 8), int)}
  return _step(structure, optimizer).lower(state, batch).compile().memory_analysis().temp_size_in_bytes


def test_the_gradient_of_a_stack_is_never_alive():
  # Of layers with 49,152 weights and little else.
  inside, of_two_layers, after = (_temporary_bytes(*arguments) for arguments in ((16, True), (2, True), (16, False)))
  assert inside - of_two_layers < 14 * 49152 * 4 / 10
  assert after > inside + 16 * 49152 * 4
