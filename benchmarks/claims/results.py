"""The results that are there, and their means and intervals over seeds."""

import dataclasses
import json
import math
import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / 'paper'
_95_PERCENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # quantiles of Student's t for the mean of so many


@dataclasses.dataclass(frozen=True)
class Mean:
  """A mean over seeds.

  Attributes:
    value: the mean.
    margin: half of its 95% confidence interval; None for a single seed.
    lowest, highest: the extremes.
    n: how many seeds.
  """

  value: float
  margin: float | None
  lowest: float
  highest: float
  n: int


def mean_of(values: list[float]) -> Mean:
  """Returns the mean of the values of several seeds, at least one."""
  n = len(values)
  margin = _95_PERCENT[n] * statistics.stdev(values) / math.sqrt(n) if n > 1 else None
  return Mean(statistics.fmean(values), margin, min(values), max(values), n)


@dataclasses.dataclass(frozen=True)
class Results:
  """All results by name.

  Attributes:
    by_name: the content of each file.
    speed: the content of `speed.json` by variant; empty if it was not measured.
  """

  by_name: dict[str, dict[str, Any]]
  speed: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

  @classmethod
  def read(cls, folder: Path = RESULTS) -> 'Results':
    """Reads all files of a folder."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob('*.json'))}
    return cls(speed=found.pop('speed', {}), by_name=found)

  def seeds(self, variant: str) -> dict[int, dict[str, Any]]:
    """Returns seed -> result of a variant, such as `copy-sru`."""
    return {
      one['seed']: one for name, one in self.by_name.items() if name.rpartition('-')[0] == variant
    }  # in the order of names

  def variants(self, names: dict[str, str]) -> dict[str, str]:
    """Returns those of several variants (name -> label) that have a result."""
    return {name: label for name, label in names.items() if self.seeds(name)}


def final_loss(result: dict[str, Any]) -> float:
  """Returns the validation loss after the last step."""
  return result['losses'][str(result['steps'])]['loss']


def exact(result: dict[str, Any], lengths: range) -> float:
  """Returns the share of exact matches over several lengths, each of which counts equally."""
  return statistics.fmean(result['exact'][str(length)] for length in lengths)
