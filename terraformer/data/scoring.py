"""Describes which scores apply to the texts that a model generates for a task; the data source decides."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Scoring:
  """The scores and baselines of a task's texts. Every task has exact match.

  Attributes:
    rouge: whether to compute ROUGE. Shared words measure how close two summaries are, but two numbers share either all
      words or none.
    lead: whether to compare ROUGE with that of the first words of the source, which a summary should beat. Ignored
      without ROUGE.
  """

  rouge: bool = True
  lead: bool = True
