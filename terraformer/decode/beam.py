"""Beam search: which hypotheses go on, and which have ended (Wu et al., 2016, for the penalty of length).

W beams.
"""

import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Hypothesis:
  """Tokens, without the end of sequence, and the sum of their log-probabilities."""

  tokens: tuple[int, ...]
  score: float


class Beams:
  """The hypotheses of one source.

  Attributes:
    live: those that go on, best first; scores of -inf are places that the first step cannot fill.
    ended: those that have ended, with what ranks them, which grows with their score by length.
  """

  def __init__(self, count: int, length_penalty: float, end: int):
    """Begins with one empty hypothesis in `count` places; the token `end` ends one."""
    self._count, self._penalty, self._end = count, length_penalty, end
    self.live = [Hypothesis((), 0.0)] + [Hypothesis((), float('-inf'))] * (count - 1)
    self.ended: list[tuple[float, Hypothesis]] = []

  def advance(self, scores: Sequence[float], parents: Sequence[int], tokens: Sequence[int]) -> list[int]:
    """Takes the 2 W best continuations, best first, and returns the parents of the W that go on.

    A continuation by the end token ends a hypothesis if it is among the W best; with one beam this is greedy decoding.
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
    """Whether as many hypotheses have ended as there are beams."""
    return len(self.ended) >= self._count

  def best(self) -> tuple[int, ...]:
    """The tokens of the best one, of those that have not ended where the search was cut off."""
    if not self.is_done:
      for hypothesis in self.live:
        self._end_one(hypothesis)
    return max(self.ended, key=lambda pair: pair[0])[1].tokens

  def _end_one(self, hypothesis: Hypothesis) -> None:
    n_tokens = len(hypothesis.tokens) + 1
    # In the order of score / ((5 + n) / 6) ** penalty, which overflows: scores are negative, and so is the logarithm.
    log_loss = -math.inf if hypothesis.score >= 0 else math.log(-hypothesis.score)
    self.ended.append((self._penalty * math.log((5 + n_tokens) / 6) - log_loss, hypothesis))
