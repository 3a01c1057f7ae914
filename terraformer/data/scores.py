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
  """What ROUGE counts.

  Attributes:
    STANDARD: rouge-score's default, with which published figures were made: runs of ASCII letters and digits, stemmed
      by Porter's rules for English.
    UNICODE: `words.words`, of any script, as they are.
  """

  STANDARD = 'standard'
  UNICODE = 'unicode'


def rouge_tokenizer_for(references: Sequence[str]) -> RougeTokenizer:
  """The tokenizer of a split: the standard one if all of its references are ASCII."""
  return RougeTokenizer.STANDARD if all(text.isascii() for text in references) else RougeTokenizer.UNICODE


class _Words(tokenizers.Tokenizer):
  def tokenize(self, text: str) -> list[str]:
    return words(text)


def rouge_of_each(
  targets: Sequence[str], predictions: Sequence[str], tokenizer: RougeTokenizer | None = None
) -> list[dict[str, Score]]:
  """ROUGE-1, -2, -L (the paper's LSent) and -Lsum of every pair, by the rouge-score package.

  Args:
    targets: references.
    predictions: as many.
    tokenizer: of the split that the pairs are a part of; None where they are the whole of it.

  Returns:
    Of every pair `ROUGE_TYPES`; with the Unicode tokenizer `STANDARD_TYPES` too, which are those of the standard one.
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
  """Mean F1 times 100 of what `rouge_of_each` returns; the names tell the tokenizer, as they do there."""
  return mean_f1(rouge_of_each(targets, predictions, tokenizer))


def mean_f1(scores: Sequence[dict[str, Score]]) -> dict[str, float]:
  """Mean F1 by type, times 100; of no scores at all, nothing."""
  types = scores[0] if scores else ()
  return {name: 100 * float(np.mean([score[name].fmeasure for score in scores])) for name in types}


def exact_match(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
  """Percentage of the predictions that are the target, to the last digit; white space around them does not count."""
  return {'exact_match': 100 * float(np.mean(exact_match_of_each(targets, predictions)))}


def exact_match_of_each(targets: Sequence[str], predictions: Sequence[str]) -> list[bool]:
  """Whether each prediction is the target, as `exact_match` counts."""
  return [target.strip() == prediction.strip() for target, prediction in zip(targets, predictions, strict=True)]


def log_likelihood(targets: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
  """Mean of the log-likelihoods, in nats an example."""
  return {'log_likelihood': float(np.mean(scores))}
