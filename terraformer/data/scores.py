"""The metric functions of this library's seqio tasks."""

from collections.abc import Sequence

import numpy as np
from rouge_score import rouge_scorer
from rouge_score.scoring import Score

ROUGE_TYPES = ('rouge1', 'rouge2', 'rougeL', 'rougeLsum')


def rouge_of_each(targets: Sequence[str], predictions: Sequence[str]) -> list[dict[str, Score]]:
  """ROUGE-1, -2, -L (the paper's LSent) and -Lsum of every pair, with stemming, by the rouge-score package."""
  scorer = rouge_scorer.RougeScorer(ROUGE_TYPES, use_stemmer=True)
  return [scorer.score(target, prediction) for target, prediction in zip(targets, predictions, strict=True)]


def rouge(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
  """Mean F1 of the four, times 100."""
  return mean_f1(rouge_of_each(targets, predictions))


def mean_f1(scores: Sequence[dict[str, Score]]) -> dict[str, float]:
  """Mean F1 by type, times 100; of no scores at all, nothing."""
  types = ROUGE_TYPES if scores else ()
  return {name: 100 * float(np.mean([score[name].fmeasure for score in scores])) for name in types}


def exact_match(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
  """Per cent of the predictions that are the target, to the last digit; white space around them does not count."""
  right = [target.strip() == prediction.strip() for target, prediction in zip(targets, predictions, strict=True)]
  return {'exact_match': 100 * float(np.mean(right))}


def log_likelihood(targets: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
  """Mean of the log-likelihoods, in nats an example."""
  return {'log_likelihood': float(np.mean(scores))}
