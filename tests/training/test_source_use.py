"""Training shows whether a model uses its source: the loss with shuffled sources stands beside the loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from terraformer.config import (
  DenseOutputConfig,
  EncoderDecoderConfig,
  LanguageModelConfig,
  LMConfig,
  RunConfig,
  TrainConfig,
)
from terraformer.data.batches import open_prepared
from terraformer.models.make import make_model
from terraformer.models.parameters import split_module
from terraformer.training import programs
from terraformer.training.loop import train
from terraformer.training.metrics import EvalMetrics, read_metrics
from terraformer.training.source_use import SHUFFLED, source_use, summarize_twice
from terraformer.training.step import make_eval_step, make_train_step
from tests.prepared import DENSE_BLOCK, PLAIN

OPTIONS = {'n_encoder_layers': 1, 'n_decoder_layers': 1, 'residual': PLAIN, 'output': DenseOutputConfig()}
MODEL = EncoderDecoderConfig(20, 8, encoder=DENSE_BLOCK, decoder=DENSE_BLOCK, **OPTIONS)


def copying(seed, size=32):
  """A batch of one token to copy, and an end of sequence."""
  tokens_Bx2 = np.ones((size, 2), np.int32)
  tokens_Bx2[:, 0] = np.random.default_rng(seed).integers(2, 20, size)
  return {'inputs': tokens_Bx2, 'targets': tokens_Bx2}


def held_out(params, structure):
  """The loss of a model, and that with shuffled sources."""
  step, batch = jax.jit(make_eval_step(structure)), copying(1000)
  found = summarize_twice([step(params, batch)], [step(params, batch | {'inputs': np.roll(batch['inputs'], 1, 0)})])
  return found['loss'], found[SHUFFLED]


@pytest.fixture(scope='module')
def copier():
  """The structure and the parameters of a model that has learnt to copy."""
  structure, params = split_module(make_model(MODEL, key=jax.random.key(0)))
  optimizer = optax.adam(1e-2)
  step = jax.jit(make_train_step(structure, optimizer, optax.constant_schedule(1e-2), jax.random.key(1)))
  state = {'params': params, 'optimizer': optimizer.init(params), 'step': 0}
  for number in range(150):
    state, _, _ = step(state, copying(number))
  return structure, state['params']


def test_a_model_that_copies_has_a_much_higher_loss_with_shuffled_sources(copier):
  structure, params = copier
  own, shuffled = held_out(params, structure)
  assert own < 0.5 and shuffled > own + 1
  assert source_use(own, shuffled).endswith('the model uses its source')


def test_a_model_whose_encoder_says_nothing_has_the_same_loss(copier):
  structure, params = copier
  silent = params | {'encoder_norm': jax.tree.map(jnp.zeros_like, params['encoder_norm'])}
  own, shuffled = held_out(silent, structure)
  assert shuffled == pytest.approx(own, abs=1e-5)
  assert source_use(own, shuffled).endswith('the model hardly uses its source')


@pytest.mark.parametrize(('shuffled', 'uses'), [(1.0, False), (2.0, False), (2.04, False), (2.06, True), (6.0, True)])
def test_a_higher_loss_with_shuffled_sources_is_said_to_be_use(shuffled, uses):
  said = source_use(2.0, shuffled)
  assert said.startswith(f"loss 2.00 nats per token, {shuffled:.2f} with another text's source: the model ")
  assert said.endswith('the model uses its source') == uses


def test_batches_with_shuffled_sources_do_not_count_in_other_figures():
  def one(loss):
    arrays = {'loss_BxT': loss, 'correct_BxT': 1.0, 'mask': 1.0}
    return EvalMetrics.single_from_model_output(**{name: np.full((1, 1), x, np.float32) for name, x in arrays.items()})

  found = summarize_twice([one(1.0), one(2.0)], [one(5.0), one(7.0)])
  assert found == {'loss': 1.5, 'accuracy': 1.0, 'perplexity': pytest.approx(np.exp(1.5)), SHUFFLED: 6.0}
  assert SHUFFLED not in summarize_twice([one(1.0)], [])


def test_training_gives_each_target_the_source_of_another_example(fake_prepared, tmp_path, monkeypatch):
  def loss_of(inputs_BxS, targets_BxT):
    return 1.0 + inputs_BxS.sum(1, keepdims=True) * (targets_BxT + 3) % 7

  def step(params, batch):
    real_BxT = batch['targets'] != 0
    losses = {'loss_BxT': loss_of(batch['inputs'], batch['targets']), 'correct_BxT': real_BxT, 'mask': real_BxT}
    return EvalMetrics.single_from_model_output(**losses)

  monkeypatch.setattr(programs, 'make_eval_step', lambda structure: step)
  data = fake_prepared('pairs', inputs_length=12, targets_length=6)
  model = dataclasses.replace(MODEL, vocab_size=452, max_length=12)
  config = TrainConfig(steps=1, batch_size=4, eval_every=1, eval_batches=3, sample_every=0, diagnostics_every=0)
  found = train(RunConfig(model, data, config), tmp_path, show_progress=False).metrics
  examples = list(open_prepared(data).eval_batches('validation', 1))
  for name, shift in (('loss', 0), (SHUFFLED, 1)):
    sources = np.roll([one['inputs'] for one in examples], shift, axis=0)
    losses = [
      loss_of(source, one['targets'])[one['targets'] != 0] for source, one in zip(sources, examples, strict=True)
    ]
    assert found[name] == pytest.approx(np.concatenate(losses).mean(), rel=1e-5), name


def test_a_run_without_sources_does_not_have_it(fake_prepared, tmp_path):
  data = fake_prepared('text', has_inputs=False, objective=LMConfig(), inputs_length=0, targets_length=8)
  model = LanguageModelConfig(452, 16, n_layers=1, decoder=DENSE_BLOCK, residual=PLAIN, output=DenseOutputConfig())
  config = TrainConfig(steps=2, batch_size=4, log_every=1, eval_every=1, eval_batches=2, sample_every=0)
  result = train(RunConfig(model, data, config), tmp_path, show_progress=False)
  rows = [row for row in read_metrics(tmp_path) if row['split'] == 'validation']
  assert len(rows) == 2 and all('loss' in row for row in rows)
  assert not any(SHUFFLED in figures for figures in (*rows, result.metrics))
  summary = (tmp_path / 'summary.md').read_text()
  assert 'source: the model' not in summary and 'shuffled' not in summary


def test_every_evaluation_of_a_run_shows_it(finished_run):
  rows = [row for row in read_metrics(finished_run) if row['split'] == 'validation']
  assert [row['step'] for row in rows] == [12, 24]
  assert all(row[SHUFFLED] == pytest.approx(row['loss'], abs=0.05) for row in rows)  # it has learnt next to nothing
  events = EventAccumulator(str(finished_run / 'tensorboard')).Reload().Scalars(f'validation/{SHUFFLED}')
  assert [event.step for event in events] == [12, 24]
  np.testing.assert_allclose([event.value for event in events], [row[SHUFFLED] for row in rows], rtol=1e-6)
