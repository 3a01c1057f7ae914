import numpy as np
import pytest
from rouge_score import rouge_scorer

from terraformer.data.scores import ROUGE_TYPES
from terraformer.eval.rouge import baselines, lead, lead_sentences, rouge, score
from tests.prepared import sentences as random_sentences


def pairs(count=200):
  """References and predictions of one to three lines, of few words, so that they have much in common."""
  rng = np.random.default_rng(0)
  lines = iter(random_sentences(6 * count, seed=1, words=8))
  texts = ['\n'.join(next(lines) for _ in range(rng.integers(1, 4))) for _ in range(2 * count)]
  return texts[:count], texts[count:]


def test_scores_of_200_pairs_are_those_of_the_package():
  references, predictions = pairs()
  scorer = rouge_scorer.RougeScorer(ROUGE_TYPES, use_stemmer=True)
  each = [scorer.score(*pair) for pair in zip(references, predictions, strict=True)]
  found, means = score(references, predictions), rouge(references, predictions)
  for name in ROUGE_TYPES:
    expected = 100 * sum(one[name].fmeasure for one in each) / len(each)
    assert found.mean[name] == pytest.approx(expected, abs=1e-9)
    assert means[name] == pytest.approx(expected, abs=1e-9)


def test_intervals_hold_the_mean_and_are_the_same_every_time():
  references, predictions = pairs(40)
  before = np.random.get_state()[1].tolist()
  found = score(references, predictions)
  assert np.random.get_state()[1].tolist() == before
  for name, (low, high) in found.interval.items():
    assert low < found.mean[name] < high
    spread = np.std([rouge([r], [p])[name] for r, p in zip(references, predictions, strict=True)]) / 40**0.5
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.15)  # of 1,000 resamples
  assert score(references, predictions) == found


def test_a_perfect_summary_scores_100_and_an_empty_one_0():
  assert rouge(['one two three'], ['one two three']) == dict.fromkeys(ROUGE_TYPES, 100)
  assert set(rouge(['one two three'], ['']).values()) == {0}


def test_lead_takes_the_first_words_across_lines():
  assert lead('one two\nthree  four five', 4) == 'one two three four'


def test_lead_sentences_are_lines_and_what_full_stops_divide():
  text = 'We show e.g. this. It holds, at 0.5 and up!\n\nso it is\nThe end.'
  assert lead_sentences(text, 3) == 'We show e.g. this.\nIt holds, at 0.5 and up!\nso it is'


def test_three_sentences_are_a_baseline_where_references_have_several():
  source = 'One two. Three four. Five six. Seven.'
  assert baselines([source], ['One two.'])[1] == {}
  assert baselines([source], ['One two.\nThree four.\nFive six.'])[1]['rougeLsum'] == 100
