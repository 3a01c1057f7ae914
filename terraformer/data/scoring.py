"""What says how good the texts are that a model writes for a task; its source knows."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Scoring:
  """The scores of a task's texts, and the baselines beside them. Every task has exact match.

  Attributes:
    rouge: whether ROUGE is one of them. Words that two texts share say how near one summary comes to another; two
      numbers share all of their words or none.
    lead: whether ROUGE stands beside that of the source's beginning, which a summary has to beat. It counts only with
      ROUGE.
  """

  rouge: bool = True
  lead: bool = True
