"""ROUGE of summaries with confidence intervals, and baselines that copy the beginning of the source."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from rouge_score.scoring import BootstrapAggregator

from terraformer.data.scores import RougeTokenizer, mean_f1, rouge, rouge_of_each, rouge_tokenizer_for
from terraformer.data.words import first_words

# In summarization data, each line is already a sentence. Within a line, a sentence ends at a stop of a script without
# capitals, and at other stops before a capital.
_STOPS = '。｡．！？।॥؟۔։።፧။។៕'
_CLOSING = '」』）】》〉”’"\')»'
_BETWEEN_SENTENCES = re.compile(
  r'\s*\n\s*'
  r'|(?<=[.!?])\s+(?=["\'(\[“‘„«]?(?P<first>[^\W_]))'
  rf'|(?<=[{_STOPS}])(?![{_STOPS}{_CLOSING}.!?]|(?<=．)\d)\s*'
  # A quotation before hiragana (と言った) does not end its sentence.
  rf'|(?<=[{_STOPS}][{_CLOSING}])(?![{_STOPS}{_CLOSING}.!?，、ぁ-ん])\s*'
)


@dataclasses.dataclass(frozen=True)
class Rouge:
  """F1 times 100 of `scores.ROUGE_TYPES` and, with the Unicode tokenizer, of `scores.STANDARD_TYPES`.

  Attributes:
    mean: mean over all pairs.
    interval: 95% confidence interval of the mean, (low, high), from rouge-score's bootstrap.
    each: for each pair, the mean of ROUGE-1, -2 and -L, which ranks examples.
  """

  mean: dict[str, float]
  interval: dict[str, tuple[float, float]]
  each: list[float]


def score(references: Sequence[str], predictions: Sequence[str]) -> Rouge:
  """Returns the scores of pairs; the same pairs always give the same intervals. Without pairs the dicts are empty."""
  scores = rouge_of_each(references, predictions)
  aggregator = BootstrapAggregator()
  for one in scores:
    aggregator.add_scores(one)
  before = np.random.get_state()  # rouge-score uses numpy's global generator
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
  """Returns the ROUGE of the sources' first ten words, and of their first three sentences.

  The second is empty if references are mostly one sentence, since three sentences would not be a comparable summary.
  """
  tokenizer = rouge_tokenizer_for(references)
  of_words = rouge(references, [lead(source, tokenizer=tokenizer) for source in sources])
  if not references or np.mean([len(sentences(reference)) for reference in references]) <= 1.5:
    return of_words, {}
  return of_words, rouge(references, [lead_sentences(source) for source in sources])


def lead(text: str, n_words: int = 10, *, tokenizer: RougeTokenizer = RougeTokenizer.STANDARD) -> str:
  """Returns the first words of a text on one line, a baseline that a summary should beat.

  White space separates words; the Unicode tokenizer has its own words, since not every script has spaces.
  """
  if tokenizer == RougeTokenizer.UNICODE:
    return ' '.join(first_words(text, n_words).split())
  return ' '.join(text.split()[:n_words])


def lead_sentences(text: str, n_sentences: int = 3) -> str:
  """Returns the first sentences of a text, one per line, the baseline for summaries of several sentences."""
  return '\n'.join(sentences(text)[:n_sentences])


def sentences(text: str) -> list[str]:
  """Returns the sentences of a text: its lines, split at full stops before a capital or a digit.

  A letter without a capital form counts as a capital.
  """
  text, parts, start = text.strip(), [], 0
  for match in _BETWEEN_SENTENCES.finditer(text):
    if match['first'] is None or match['first'] == match['first'].title() or match['first'].isupper():
      parts.append(text[start : match.start()])
      start = match.end()
  return [part for part in [*parts, text[start:]] if part]
