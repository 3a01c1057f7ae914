"""Evaluations that fit their run, and those that do not."""

import dataclasses

import pytest

from terraformer.config import UserError
from terraformer.eval.evaluate import evaluate
from terraformer.train import checkpoint


def test_it_reads_as_many_examples_as_it_says(finished_run):
  result = evaluate(finished_run, limit=5, progress=False)
  assert result.n_examples == len(result.texts) == 5
  more = evaluate(finished_run, limit=500, progress=False)
  assert more.n_examples == len(more.texts) == 7  # the whole split
  assert more.texts[:5] == result.texts


def test_other_data_are_refused(finished_run, fake_prepared):
  run, _ = checkpoint.read_run(finished_run, 24)
  other = fake_prepared('pairs', counts=(9, 5, 5), inputs_length=12, targets_length=6)
  with pytest.raises(UserError, match='expected the data that the run was trained on, found others'):
    evaluate(finished_run, run=dataclasses.replace(run, data=other), progress=False)


def test_another_model_is_refused_though_its_shapes_are_the_same(finished_run):
  run, _ = checkpoint.read_run(finished_run, 24)
  encoder = dataclasses.replace(run.model.encoder, n_heads=4)
  model = dataclasses.replace(run.model, encoder=encoder)
  with pytest.raises(UserError, match='expected the model of the run, found encoder.n_heads: 2 -> 4'):
    evaluate(finished_run, run=dataclasses.replace(run, model=model), progress=False)
