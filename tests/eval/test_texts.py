"""Texts are judged by what their own tasks say."""

import pytest

from terraformer.data.scores import ROUGE_TYPES, STANDARD_TYPES, RougeTokenizer
from terraformer.data.scoring import Scoring
from terraformer.eval.texts import judge

EXACT = Scoring(rouge=False, lead=False)
NEWS = [
  ('The cat ran home. It was late and dark in all the streets.', 'The cat ran.', 'The cat ran home.'),
  ('A dog slept in the sun for all of a long day, and nobody woke it.', 'A dog slept.', 'A dog slept.'),
]
NUMBERS = [('427', '427', '427'), ('31', '31', '13'), ('5', '5', '5')]


def test_numbers_have_exact_match_and_neither_rouge_nor_baselines():
  found = judge(NUMBERS, ['copy'] * 3, {'copy': EXACT})
  assert found['exact_match'] == pytest.approx(200 / 3)
  assert found['scores'] == [100, 0, 100]
  for name in ('rouge', 'rouge_intervals', 'lead_rouge', 'lead3_rouge', 'by_task'):
    assert found[name] == {}, name
  assert found['rouge_tokenizer'] is None


def test_in_a_mixture_each_task_has_its_own():
  texts, tasks = [NEWS[0], *NUMBERS, NEWS[1]], ['news', 'copy', 'copy', 'copy', 'news']
  found = judge(texts, tasks, {'news': Scoring(), 'copy': EXACT})
  alone = judge(NEWS, ['news'] * 2, {'news': Scoring()})
  for name in ('rouge', 'rouge_intervals', 'lead_rouge', 'rouge_tokenizer'):
    assert found[name] == alone[name], name
  assert found['by_task']['copy'] == {'texts': 3, 'exact_match': pytest.approx(200 / 3)}
  assert found['by_task']['news'] == {'texts': 2, 'exact_match': 50.0} | alone['rouge']
  assert found['exact_match'] == pytest.approx(60)
  assert found['scores'] == [alone['scores'][0], 100, 0, 100, alone['scores'][1]]


def test_digits_of_another_script_do_not_choose_the_tokenizer_of_words():
  texts = [*NEWS, ('\u0661\u0662', '\u0661\u0662', '\u0661')]
  found = judge(texts, ['news', 'news', 'copy'], {'news': Scoring(), 'copy': EXACT})
  assert found['rouge_tokenizer'] == RougeTokenizer.STANDARD and found['rouge'].keys() == {*ROUGE_TYPES}
  of_all = judge(texts, ['news'] * 3, {'news': Scoring()})
  assert of_all['rouge_tokenizer'] == RougeTokenizer.UNICODE and of_all['rouge'].keys() == {
    *ROUGE_TYPES,
    *STANDARD_TYPES,
  }


def test_a_task_without_the_baseline_leaves_rouge_alone():
  found = judge(NEWS, ['fix'] * 2, {'fix': Scoring(lead=False)})
  assert found['rouge']['rouge1'] > 50 and found['lead_rouge'] == found['lead3_rouge'] == {}


def test_texts_that_are_the_same_again_and_again_are_counted_once():
  texts = [(f'source {i}', f'reference {i % 3}', ('one', ' one\n', 'two')[i % 3]) for i in range(12)]
  found = judge(texts, ['news'] * 12, {'news': Scoring()})
  assert (found['distinct_texts'], found['distinct_references']) == (2 / 12, 3 / 12)


def test_of_no_texts_there_is_nothing():
  found = judge([], [], {})
  assert {name for name, value in found.items() if value is not None and len(value)} == set()
  assert found['exact_match'] is found['distinct_texts'] is None
