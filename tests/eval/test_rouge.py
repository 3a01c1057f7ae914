import pytest
from rouge_score import rouge_scorer

from terraformer.data.scores import ROUGE_TYPES
from terraformer.eval.rouge import lead, rouge


def test_scores_are_those_of_the_package():
  references = ['Return the sum of all elements.', 'Open a file for reading.']
  predictions = ['Return a sum of the elements.', 'Close the file.']
  scorer = rouge_scorer.RougeScorer(['rouge2'], use_stemmer=True)
  expected = [scorer.score(*pair)['rouge2'].fmeasure for pair in zip(references, predictions, strict=True)]
  assert rouge(references, predictions)['rouge2'] == pytest.approx(50 * sum(expected), abs=1e-9)


def test_a_perfect_summary_scores_100_and_an_empty_one_0():
  assert rouge(['one two three'], ['one two three']) == dict.fromkeys(ROUGE_TYPES, 100)
  assert set(rouge(['one two three'], ['']).values()) == {0}


def test_lead_takes_the_first_words_across_lines():
  assert lead('one two\nthree  four five', 4) == 'one two three four'
