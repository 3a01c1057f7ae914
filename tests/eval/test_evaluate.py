"""Evaluations that fit their run, and those that do not."""

import dataclasses
import json
import shutil
import time

import jax.numpy as jnp
import pytest

from terraformer.config import DecodeConfig, UserError
from terraformer.data.batches import Prepared
from terraformer.data.scores import ROUGE_TYPES, STANDARD_TYPES
from terraformer.decode.decoder import Decoder
from terraformer.eval import evaluate as evaluation
from terraformer.eval.evaluate import evaluate
from terraformer.eval.page import as_html
from terraformer.eval.report import as_text
from terraformer.training import checkpoint
from terraformer.training.metrics import EvalMetrics
from tests import formats


def test_it_reads_as_many_examples_as_it_says(finished_run):
  result = evaluate(finished_run, limit=5, show_progress=False)
  assert result.n_examples == len(result.texts) == 5
  more = evaluate(finished_run, limit=500, show_progress=False)
  assert more.n_examples == len(more.texts) == 7  # the whole split
  assert more.texts[:5] == result.texts


def test_other_data_are_refused(finished_run, fake_prepared):
  run, _ = checkpoint.read_run(finished_run, 24)
  other = fake_prepared('pairs', counts=(9, 5, 5), inputs_length=12, targets_length=6)
  with pytest.raises(UserError, match='expected the data of the run .*, found [0-9a-f]'):
    evaluate(finished_run, run=dataclasses.replace(run, data=other), show_progress=False)


def test_another_model_is_refused_though_its_shapes_are_the_same(finished_run):
  run, _ = checkpoint.read_run(finished_run, 24)
  encoder = dataclasses.replace(run.model.encoder, n_heads=4)
  model = dataclasses.replace(run.model, encoder=encoder)
  with pytest.raises(UserError, match='was trained with model.encoder.n_heads = 2, not 4; leave out the change'):
    evaluate(finished_run, run=dataclasses.replace(run, model=model), show_progress=False)


@pytest.fixture
def run_folder(finished_run, tmp_path):
  """A run that has not been evaluated."""
  return shutil.copytree(finished_run, tmp_path / 'run', ignore=shutil.ignore_patterns('evaluation*', 'tensorboard'))


def rows(run_folder, name='evaluation_test.jsonl'):
  return [json.loads(line) for line in (run_folder / name).read_text().splitlines()]


def test_texts_are_those_of_the_exported_bundle(run_folder, bundle):
  result = evaluate(run_folder, limit=4, show_progress=False, decode=DecodeConfig(beams=2), batch_size=2)
  expected = Decoder.open(bundle).generate_batch([source for source, _, _ in result.texts], DecodeConfig(beams=2))
  assert [text for _, _, text in result.texts] == expected


def test_what_is_in_the_file_is_not_decoded_again(run_folder):
  first = evaluate(run_folder, limit=4, show_progress=False)
  path = run_folder / 'evaluation_test.jsonl'
  kept = rows(run_folder)
  marked = [kept[0] | {'prediction': kept[0]['reference']}, *kept[1:3]]
  cut = json.dumps(kept[3])[:-5]  # as a kill leaves it
  path.write_text('\n'.join([*map(json.dumps, marked), cut]))
  again = evaluate(run_folder, limit=4, show_progress=False)
  assert rows(run_folder) == [*marked, kept[3]]
  assert [text for _, _, text in again.texts] == [kept[0]['reference'], *(text for _, _, text in first.texts[1:])]
  assert (first.exact_match, again.exact_match) == (0, 25)


def test_texts_of_another_way_of_decoding_are_not_mixed_in(run_folder):
  evaluate(run_folder, limit=3, show_progress=False)
  first = rows(run_folder)
  evaluate(run_folder, limit=2, show_progress=False, decode=DecodeConfig(max_tokens=1))
  assert len(rows(run_folder)) == 2 and rows(run_folder) != first[:2]
  assert rows(run_folder, 'evaluation_test.step24.jsonl') == first


def test_killed_it_goes_on(run_folder, terraformer):
  command = ('evaluate', f'--workdir={run_folder}', '--batch_size=1', '--json')
  process = terraformer(*command)
  path, deadline = run_folder / 'evaluation_test.jsonl', time.monotonic() + 200
  while not (path.exists() and path.stat().st_size) and process.poll() is None:
    assert time.monotonic() < deadline
    time.sleep(0.002)
  process.kill()
  process.wait()
  before = rows(run_folder)
  assert 0 < len(before) < 7
  evaluate(run_folder, show_progress=False)
  assert rows(run_folder)[: len(before)] == before and len(rows(run_folder)) == 7


def test_perplexity_alone_leaves_no_texts(run_folder):
  result = evaluate(run_folder, limit=3, show_progress=False, decode=None)
  assert result.perplexity > 1 and not result.rouge and not result.texts
  assert not (run_folder / 'evaluation_test.jsonl').exists()


def test_the_best_checkpoint_is_evaluated_where_it_is_asked_for(run_folder):
  shutil.rmtree(run_folder / 'checkpoints')
  with pytest.raises(UserError, match='there is no checkpoint; give the folder of a run that has one'):
    evaluate(run_folder, show_progress=False)
  assert evaluate(run_folder, limit=2, show_progress=False, best=True).step in (12, 24)


def test_texts_that_cannot_be_kept_are_named(run_folder):
  (run_folder / 'evaluation_test.jsonl').mkdir()
  with pytest.raises(UserError, match='cannot read and write .*evaluation_test.jsonl: '):
    evaluate(run_folder, limit=1, show_progress=False)


def test_the_tokenizer_is_chosen_once_for_all_tasks_of_the_split(run_folder, monkeypatch):
  monkeypatch.setattr(Decoder, 'generate_batch', lambda self, sources, config: [source.upper() for source in sources])
  pairs = [('the cats ran', 'the cat ran'), ('мама мыла раму', 'Мама мыла раму')]
  monkeypatch.setattr(Prepared, 'eval_texts', lambda *_: pairs)
  monkeypatch.setattr(Prepared, 'eval_tasks', lambda *_: ['english', 'russian'])
  found = json.loads(json.dumps(dataclasses.asdict(evaluate(run_folder, limit=2, show_progress=False))))
  assert found['rouge_tokenizer'] == 'unicode' and found['rouge'].keys() == {*ROUGE_TYPES, *STANDARD_TYPES}
  of_english, of_russian = found['by_task']['english'], found['by_task']['russian']
  assert of_english['rouge1'] == pytest.approx(200 / 3) and of_english['standard_rouge1'] == 100
  assert of_russian['rouge1'] == 100 and of_russian['standard_rouge1'] == 0


def test_it_has_the_loss_with_shuffled_sources_and_how_many_texts_are_distinct(run_folder):
  result = json.loads(json.dumps(dataclasses.asdict(evaluate(run_folder, limit=5, show_progress=False))))
  assert result['loss_with_shuffled_sources'] == pytest.approx(result['loss'], abs=0.05)  # it has learnt too little
  written = {text for _, _, text in result['texts']}
  assert result['distinct_texts'] == len(written) / 5 and result['distinct_references'] == 1


def test_the_loss_with_shuffled_sources_does_not_depend_on_the_size_of_a_batch(run_folder):
  one, other = (evaluate(run_folder, limit=5, show_progress=False, decode=None, batch_size=size) for size in (1, 4))
  assert one.loss_with_shuffled_sources == pytest.approx(other.loss_with_shuffled_sources, rel=1e-5)
  assert one.distinct_texts is one.distinct_references is None


def test_of_one_example_there_is_no_other_source(run_folder):
  assert evaluate(run_folder, limit=1, show_progress=False, decode=None).loss_with_shuffled_sources is None


def copies(inputs_BxT, targets_BxT):
  """The losses of a model that copies its source."""
  return jnp.where(inputs_BxT == targets_BxT, 0.01, 6.0)


def ignores(inputs_BxT, targets_BxT):
  """The losses of a model that does not read its source."""
  return jnp.where(targets_BxT % 2, 1.0, 3.0)


@pytest.fixture
def digits_run(tmp_path, monkeypatch):
  """A run that has learnt to copy numbers, more or less; its sources are as long as its targets."""
  formats.unpack('v1', 'digits', tmp_path)
  monkeypatch.chdir(tmp_path)
  return formats.RUN


@pytest.fixture
def evaluated(digits_run, monkeypatch):
  """Returns run(losses_of, batch_size) -> the evaluation of a model that has these losses."""

  def run(losses_of, batch_size):
    def step(params, batch):
      real_BxT = batch['targets'] != 0
      loss_BxT = losses_of(batch['inputs'], batch['targets'])
      return EvalMetrics.single_from_model_output(loss_BxT=loss_BxT, correct_BxT=real_BxT, mask=real_BxT)

    monkeypatch.setattr(evaluation, 'make_eval_step', lambda structure: step)
    return evaluate(digits_run, limit=8, show_progress=False, decode=None, batch_size=batch_size)

  return run


@pytest.mark.parametrize('batch_size', [1, 3, 8])
def test_a_model_that_copies_has_a_much_higher_loss_with_shuffled_sources(evaluated, batch_size):
  result = evaluated(copies, batch_size)
  assert result.loss < 0.1 and result.loss_with_shuffled_sources > result.loss + 2
  assert as_text(result).endswith('the model uses its source')


def test_a_model_that_ignores_its_source_has_the_same_loss(evaluated):
  result = evaluated(ignores, 3)
  assert result.loss_with_shuffled_sources == pytest.approx(result.loss, rel=1e-6)
  assert as_text(result).endswith('the model hardly uses its source')


def test_numbers_are_scored_by_exact_match_alone(digits_run):
  result = evaluate(digits_run, limit=3, show_progress=False)
  assert result.exact_match is not None and len(result.texts) == len(result.scores) == 3
  assert result.rouge == result.rouge_intervals == result.lead_rouge == result.lead3_rouge == {}
  for text in (as_text(result), as_html(result, 'run')):
    assert 'exact match' in text and 'ROUGE' not in text and 'first ten words' not in text


def test_a_registered_task_of_which_nothing_is_known_is_scored_as_text(run_folder):
  result = evaluate(run_folder, limit=3, show_progress=False)
  assert result.rouge.keys() == result.lead_rouge.keys() == {*ROUGE_TYPES}


@pytest.mark.parametrize(('decode', 'expected'), [(DecodeConfig(), 'standard'), (None, None)])
def test_the_tokenizer_of_ascii_references_is_the_standard_one(run_folder, decode, expected):
  assert evaluate(run_folder, limit=2, show_progress=False, decode=decode).rouge_tokenizer == expected


@pytest.mark.parametrize('engine', ['xla', 'auto'])
def test_a_bundle_has_the_loss_of_its_checkpoint(run_folder, bundle, engine):
  expected = evaluate(run_folder, limit=5, show_progress=False)
  found = evaluate(run_folder, limit=5, show_progress=False, bundle=bundle, engine=engine)
  assert found.loss == pytest.approx(expected.loss, abs=1e-4)
  assert found.loss_with_shuffled_sources == pytest.approx(expected.loss_with_shuffled_sources, abs=1e-4)
  assert (found.step, found.texts) == (24, expected.texts)


def test_a_bundle_of_another_model_is_refused(run_folder, bundle, tmp_path):
  other = shutil.copytree(bundle, tmp_path / 'other')
  config = json.loads((other / 'config.json').read_text())
  config['model']['decoder']['ff_chunk'] = 3
  (other / 'config.json').write_text(json.dumps(config))
  with pytest.raises(UserError, match="other has another model than the run; give a bundle of the run's model"):
    evaluate(run_folder, limit=5, show_progress=False, bundle=other)
