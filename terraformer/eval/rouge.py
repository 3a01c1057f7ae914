"""ROUGE of summaries, by the rouge-score package, and the baseline that copies the source's first words."""

from collections.abc import Sequence

from rouge_score import rouge_scorer

TYPES = ('rouge1', 'rouge2', 'rougeLsum')


def rouge(references: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
  """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-Lsum, with stemming, times 100."""
  scorer = rouge_scorer.RougeScorer(TYPES, use_stemmer=True)
  scores = [scorer.score(target, written) for target, written in zip(references, predictions, strict=True)]
  return {name: 100 * sum(score[name].fmeasure for score in scores) / len(scores) for name in TYPES}


def lead(text: str, n_words: int = 10) -> str:
  """The first words of a text: the baseline that a summary has to beat."""
  return ' '.join(text.split()[:n_words])
