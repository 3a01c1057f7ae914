"""Beam search: keeps the best hypotheses and collects the finished ones (length penalty: Wu et al., 2016).

W beams.
"""

import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Hypothesis:
  """Tokens without the end of sequence, and the sum of all log-probabilities."""

  tokens: tuple[int, ...]
  score: float


class Beams:
  """The hypotheses for one source.

  Attributes:
    live: unfinished hypotheses, best first; those with a score of -inf are placeholders for the first step.
    ended: finished hypotheses, each with its rank, which grows with the length-penalized score.
  """

  def __init__(self, count: int, length_penalty: float, end: int):
    """Starts `count` beams from one empty hypothesis; the token `end` finishes a hypothesis."""
    self._count, self._penalty, self._end = count, length_penalty, end
    self.live = [Hypothesis((), 0.0)] + [Hypothesis((), float('-inf'))] * (count - 1)
    self.ended: list[tuple[float, Hypothesis]] = []

  def advance(self, scores: Sequence[float], parents: Sequence[int], tokens: Sequence[int]) -> list[int]:
    """Takes the 2 W best continuations, best first, and returns the parents of the W new live hypotheses.

    The end token finishes a hypothesis only if that continuation is among the W best. With one beam this is greedy
    decoding.
    """
    live, places = [], []
    for rank, (score, parent, token) in enumerate(zip(scores, parents, tokens, strict=True)):
      before = self.live[parent].tokens
      if token == self._end:
        if rank < self._count:
          self._end_one(Hypothesis(before, score))
      elif len(live) < self._count:
        live.append(Hypothesis((*before, token), score))
        places.append(parent)
    self.live = live
    return places

  @property
  def is_done(self) -> bool:
    """Whether the number of finished hypotheses has reached the number of beams."""
    return len(self.ended) >= self._count

  def best(self) -> tuple[int, ...]:
    """Returns the tokens of the best hypothesis; if the search was cut off, live hypotheses count as finished."""
    if not self.is_done:
      for hypothesis in self.live:
        self._end_one(hypothesis)
    return max(self.ended, key=lambda pair: pair[0])[1].tokens

  def _end_one(self, hypothesis: Hypothesis) -> None:
    n_tokens = len(hypothesis.tokens) + 1
    # Ranks in the same order as score / ((5 + n) / 6) ** penalty, which may overflow. Scores are negative, so a rank is
    # the negated logarithm of their magnitude.
    log_loss = -math.inf if hypothesis.score >= 0 else math.log(-hypothesis.score)
    self.ended.append((self._penalty * math.log((5 + n_tokens) / 6) - log_loss, hypothesis))
