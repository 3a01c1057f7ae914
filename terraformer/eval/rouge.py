"""ROUGE of summaries with confidence intervals, and the baselines that copy the beginning of the source."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from rouge_score.scoring import BootstrapAggregator

from terraformer.data.scores import mean_f1, rouge, rouge_of_each

# Lines are sentences already in the data of summarisation; in a line, one ends where the next begins with a capital.
_BETWEEN_SENTENCES = re.compile(r'\s*\n\s*|(?<=[.!?])\s+(?=["\'(\[]?[A-Z0-9])')


@dataclasses.dataclass(frozen=True)
class Rouge:
  """F1 times 100 of `scores.ROUGE_TYPES`.

  Attributes:
    mean: over all pairs.
    interval: the 95% confidence interval of the mean, (low, high), by rouge-score's bootstrap.
    each: of every pair, the mean of ROUGE-1, -2 and -L: by what examples are ordered.
  """

  mean: dict[str, float]
  interval: dict[str, tuple[float, float]]
  each: list[float]


def score(references: Sequence[str], predictions: Sequence[str]) -> Rouge:
  """Scores pairs; the same pairs always get the same intervals. Of no pairs at all the dicts are empty."""
  scores = rouge_of_each(references, predictions)
  aggregator = BootstrapAggregator()
  for one in scores:
    aggregator.add_scores(one)
  before = np.random.get_state()  # the package draws from numpy's own generator
  np.random.seed(0)
  try:
    bounds = aggregator.aggregate()
  finally:
    np.random.set_state(before)
  return Rouge(
    mean_f1(scores),
    {name: (100 * float(bound.low.fmeasure), 100 * float(bound.high.fmeasure)) for name, bound in bounds.items()},
    [100 * float(np.mean([one[name].fmeasure for name in ('rouge1', 'rouge2', 'rougeL')])) for one in scores],
  )


def baselines(sources: Sequence[str], references: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
  """ROUGE of the sources' first ten words, and of their first three sentences.

  The second is empty where a reference is mostly one sentence: three would be no summary.
  """
  of_words = rouge(references, [lead(source) for source in sources])
  if not references or np.mean([len(sentences(reference)) for reference in references]) <= 1.5:
    return of_words, {}
  return of_words, rouge(references, [lead_sentences(source) for source in sources])


def lead(text: str, n_words: int = 10) -> str:
  """The first words of a text: the baseline that a summary has to beat."""
  return ' '.join(text.split()[:n_words])


def lead_sentences(text: str, n_sentences: int = 3) -> str:
  """The first sentences of a text, one a line: the baseline of summaries of several sentences."""
  return '\n'.join(sentences(text)[:n_sentences])


def sentences(text: str) -> list[str]:
  """The sentences of a text: its lines, divided at full stops before a capital or a digit."""
  return [part for part in _BETWEEN_SENTENCES.split(text.strip()) if part]
