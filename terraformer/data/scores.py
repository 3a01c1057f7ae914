"""The metric functions of this library's seqio tasks."""

import enum
from collections.abc import Sequence

import numpy as np
from rouge_score import rouge_scorer, tokenizers
from rouge_score.scoring import Score

from terraformer.data.words import words

ROUGE_TYPES = ('rouge1', 'rouge2', 'rougeL', 'rougeLsum')
STANDARD_TYPES = tuple(f'standard_{name}' for name in ROUGE_TYPES)


class RougeTokenizer(enum.StrEnum):
  """The words that ROUGE compares.

  Attributes:
    STANDARD: rouge-score's default, used for published results: runs of ASCII letters and digits, stemmed by Porter's
      rules for English.
    UNICODE: `words.words` of any script, without stemming.
  """

  STANDARD = 'standard'
  UNICODE = 'unicode'


def rouge_tokenizer_for(references: Sequence[str]) -> RougeTokenizer:
  """Returns the tokenizer for a split: the standard one if all references are ASCII."""
  return RougeTokenizer.STANDARD if all(text.isascii() for text in references) else RougeTokenizer.UNICODE


class _Words(tokenizers.Tokenizer):
  def tokenize(self, text: str) -> list[str]:
    return words(text)


def rouge_of_each(
  targets: Sequence[str], predictions: Sequence[str], tokenizer: RougeTokenizer | None = None
) -> list[dict[str, Score]]:
  """Returns ROUGE-1, -2, -L (the paper's LSent) and -Lsum of every pair, computed by the rouge-score package.

  Args:
    targets: references.
    predictions: one for each reference.
    tokenizer: the tokenizer of the split that contains the pairs; None if the pairs are the whole split.

  Returns:
    `ROUGE_TYPES` for every pair; with the Unicode tokenizer also `STANDARD_TYPES`, computed by the standard one.
  """
  pairs = list(zip(targets, predictions, strict=True))
  scorer = rouge_scorer.RougeScorer(ROUGE_TYPES, use_stemmer=True)
  standard = [scorer.score(*pair) for pair in pairs]
  if (tokenizer or rouge_tokenizer_for(targets)) == RougeTokenizer.STANDARD:
    return standard
  scorer = rouge_scorer.RougeScorer(ROUGE_TYPES, tokenizer=_Words())
  return [
    scorer.score(*pair) | dict(zip(STANDARD_TYPES, beside.values(), strict=True))
    for pair, beside in zip(pairs, standard, strict=True)
  ]


def rouge(
  targets: Sequence[str], predictions: Sequence[str], tokenizer: RougeTokenizer | None = None
) -> dict[str, float]:
  """Returns the mean F1, times 100, of the scores of `rouge_of_each`, under the same names."""
  return mean_f1(rouge_of_each(targets, predictions, tokenizer))


def mean_f1(scores: Sequence[dict[str, Score]]) -> dict[str, float]:
  """Returns the mean F1 by type, times 100; empty if there are no scores."""
  types = scores[0] if scores else ()
  return {name: 100 * float(np.mean([score[name].fmeasure for score in scores])) for name in types}


def exact_match(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
  """Returns the percentage of predictions that equal the target, ignoring surrounding white space."""
  return {'exact_match': 100 * float(np.mean(exact_match_of_each(targets, predictions)))}


def exact_match_of_each(targets: Sequence[str], predictions: Sequence[str]) -> list[bool]:
  """Returns whether each prediction equals its target, as in `exact_match`."""
  return [target.strip() == prediction.strip() for target, prediction in zip(targets, predictions, strict=True)]


def log_likelihood(targets: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
  """Returns the mean log-likelihood, in nats per example."""
  return {'log_likelihood': float(np.mean(scores))}
