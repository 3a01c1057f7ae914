"""The metric functions of this library's seqio tasks."""

from collections.abc import Sequence

import numpy as np
from rouge_score import rouge_scorer

_ROUGE = ('rouge1', 'rouge2', 'rougeL', 'rougeLsum')


def rouge(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
  """Mean F1 of ROUGE-1, -2, -L (the paper's LSent) and -Lsum, with stemming, times 100."""
  scorer = rouge_scorer.RougeScorer(_ROUGE, use_stemmer=True)
  pairs = [scorer.score(target, prediction) for target, prediction in zip(targets, predictions, strict=True)]
  return {name: 100 * float(np.mean([pair[name].fmeasure for pair in pairs])) for name in _ROUGE}


def exact_match(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
  """Per cent of the predictions that are the target, to the last digit; white space around them does not count."""
  right = [target.strip() == prediction.strip() for target, prediction in zip(targets, predictions, strict=True)]
  return {'exact_match': 100 * float(np.mean(right))}


def log_likelihood(targets: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
  """Mean of the log-likelihoods, in nats an example."""
  return {'log_likelihood': float(np.mean(scores))}
