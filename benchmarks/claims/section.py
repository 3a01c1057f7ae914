"""A section of the page."""

import dataclasses
from collections.abc import Sequence

from benchmarks.claims.results import Mean


@dataclasses.dataclass(frozen=True)
class Section:
  """A claim and what was measured.

  Attributes:
    title: the heading.
    claim: what the paper says, in a few words.
    verdict: what was found, in a few words.
    body: the Markdown below the heading.
    charts: name of an SVG file -> its content.
  """

  title: str
  claim: str
  verdict: str
  body: str
  charts: dict[str, str]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Returns a Markdown table."""
  return '\n'.join(f'| {" | ".join(row)} |' for row in (head, ['---'] * len(head), *rows)) + '\n'


def percent(mean: Mean) -> str:
  """Returns a share in percent, with the lowest and highest of several seeds."""
  if mean.n == 1:
    return f'{mean.value:.1%}'
  return f'{mean.value:.1%} ({mean.lowest:.1%} to {mean.highest:.1%})'


def nats(mean: Mean, sign: str = '') -> str:
  """Returns a loss with its interval."""
  return f'{mean.value:{sign}.3f}' + ('' if mean.margin is None else f' ± {mean.margin:.3f}')
