"""What an evaluation prints."""

import dataclasses

import pytest

from terraformer.eval.report import as_text
from tests.eval.test_page import MIXTURE, both, numbers, result


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
  monkeypatch.setenv('COLUMNS', '120')


def test_of_ascii_references_there_is_the_standard_score_alone():
  text = as_text(result([1.0, 2.0]))
  lines = [' '.join(line.split()) for line in text.splitlines()]
  assert 'ROUGE-1 12.35 10.00 to 14.00 12.35' in lines
  assert 'ROUGE uses the words of the standard tokenizer: stemmed runs of ASCII letters and digits.' in lines
  assert 'standard ROUGE' not in text


def test_of_other_references_both_scores_are_there_for_the_split_and_its_tasks():
  lines = [' '.join(line.split()) for line in as_text(both(result([1.0, 2.0]))).splitlines()]
  assert 'ROUGE-1 12.35 10.00 to 14.00 12.35' in lines
  assert 'standard ROUGE-1 45.60 40.00 to 50.00 45.60' in lines
  assert 'news 7 5.0% 12.35 12.35 12.35 12.35' in lines
  assert 'news 7 5.0% 45.60 45.60 45.60 45.60' in lines
  assert any(line.startswith('ROUGE uses the words of the Unicode tokenizer') for line in lines)


def test_numbers_have_their_exact_match_and_no_rouge():
  text = as_text(numbers([100.0, 0.0, 100.0]))
  assert 'exact match' in text and 'ROUGE' not in text and 'F1' not in text and 'first ten words' not in text
  assert text.count('reference: ') == 3 and 'prompt' not in text


def test_in_a_mixture_a_score_that_a_task_does_not_have_is_a_dash():
  evaluation = dataclasses.replace(result([1.0, 2.0]), by_task=MIXTURE)
  lines = [' '.join(line.split()) for line in as_text(evaluation).splitlines()]
  assert 'news 7 5.0% 12.35 12.35 12.35 12.35' in lines and 'copy 3 66.7% - - - -' in lines
  assert 'It does not count the texts of copy.' in ' '.join(lines)


def test_tasks_of_numbers_alone_have_a_table_without_rouge():
  by_task = {'copy': MIXTURE['copy'], 'add': {'texts': 4, 'exact_match': 25.0}}
  text = as_text(dataclasses.replace(numbers([100.0]), by_task=by_task))
  lines = [' '.join(line.split()) for line in text.splitlines()]
  assert 'task texts exact match' in lines and 'add 4 25.0%' in lines and 'ROUGE' not in text


@pytest.mark.parametrize(
  ('shuffled', 'expected'),
  [
    (4.12, "loss 2.00 nats per token, 4.12 with another text's source: the model uses its source"),
    (2.04, "loss 2.00 nats per token, 2.04 with another text's source: the model hardly uses its source"),
    (1.9, "loss 2.00 nats per token, 1.90 with another text's source: the model hardly uses its source"),
  ],
)
@pytest.mark.parametrize('decoded', [True, False])
def test_it_says_whether_the_model_uses_its_source(shuffled, expected, decoded):
  evaluation = dataclasses.replace(result([1.0]), loss_with_shuffled_sources=shuffled)
  if not decoded:
    evaluation = dataclasses.replace(evaluation, texts=[], rouge={}, exact_match=None, scores=[])
  assert expected in as_text(evaluation).splitlines()


def test_of_a_model_without_sources_nothing_is_said_of_them():
  text = as_text(result([1.0]))
  assert 'its source' not in text and 'distinct' not in text


def test_it_says_how_many_texts_are_distinct():
  evaluation = dataclasses.replace(result([1.0]), distinct_texts=0.125, distinct_references=0.98)
  assert '    distinct texts     12.5%  (98.0% of the references)' in as_text(evaluation).splitlines()


@pytest.mark.parametrize('evaluation', [result([1.0]), both(result([1.0]))])
def test_columns_stand_below_their_heads(evaluation):
  lines = as_text(evaluation).splitlines()
  table = lines[next(i for i, line in enumerate(lines) if 'F1 x 100' in line) :]
  table = table[: table.index('')]
  ends = [line.index('model') + len('model') if 'model' in line else line.index('.') + 3 for line in table[:-1]]
  assert len(set(ends)) == 1
