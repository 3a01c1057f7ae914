"""The page of the documentation that the results make: `docs/paper.md` and its charts."""

import re
from collections.abc import Callable
from pathlib import Path

from benchmarks.claims.digits_section import addition, copying
from benchmarks.claims.experiments import EXPERIMENTS
from benchmarks.claims.results import Results
from benchmarks.claims.section import Section, table
from benchmarks.claims.text_section import ablations, figure_1, long_text, pairs
from terraformer.files import write_whole

DOCS = Path(__file__).parents[2] / 'docs'
_SECTIONS: tuple[Callable[[Results], Section | None], ...] = (copying, addition, figure_1, ablations, long_text, pairs)

_HEAD = """# The paper's claims, measured

The paper makes claims about quality that take training to check. Here they are checked at sizes that two CPU cores
train in minutes. A claim that fails here may hold at the paper's size, and the reverse. This page is written by
`python benchmarks/paper.py --page` from one file of results per training run, in `benchmarks/paper/`; every measured
number comes from there. A number behind ± is a 95% confidence interval over seeds (Student's t).

"""
_SUMMARIES = """
Summaries are measured in [the card of the shipped model](../terraformer/pretrained/technical_english.md), and times of
large models in [Decoding](../benchmarks/decode.md).
"""
_AGAIN = """## Measure it yourself

```
python benchmarks/paper.py --list
python benchmarks/paper.py --folder=runs/paper --only='copy-*' --hours=2
python benchmarks/paper.py --page
```

An experiment that has a file of results is done, and is not run again. One that was stopped, or killed, resumes bit
for bit. `--scale=gpu` selects those that need a GPU.

"""


def page(results: Results) -> tuple[str, dict[str, str]]:
  """Returns the page, and its charts by file name."""
  made = [section for make in _SECTIONS if (section := make(results))]
  claims = table(
    ['the paper', 'measured here'],
    [[f'[{one.claim}](#{_anchor(one.title)})', one.verdict] for one in made],
  )
  parts = [
    _HEAD,
    claims,
    _SUMMARIES,
    *(f'\n## {one.title}\n\n{one.body}' for one in made),
    '\n',
    _open(results),
    _AGAIN,
    _runs(results),
  ]
  return ''.join(parts), {name: chart for one in made for name, chart in one.charts.items()}


def write_page(results: Results, docs: Path = DOCS) -> None:
  """Writes the page and its charts into the folder of the documentation."""
  text, charts = page(results)
  write_whole(docs / 'paper.md', text.encode())
  for name, chart in charts.items():
    write_whole(docs / 'pictures' / name, chart.encode())


def _anchor(title: str) -> str:
  """Returns the anchor that the site gives a heading."""
  return re.sub(r'[^\w-]', '', title.lower().replace(' ', '-'))


def _open(results: Results) -> str:
  """Returns the section on what is not measured yet."""
  parts = []
  for scale, where in (('cpu', 'two CPU cores'), ('gpu', 'one GPU')):
    missing = [each for each in EXPERIMENTS if each.scale == scale and each.name not in results.by_name]
    if missing:
      hours = sum(each.hours for each in missing)
      seeds: dict[str, list[int]] = {}
      for each in missing:
        seeds.setdefault(each.variant, []).append(each.seed)
      names = ', '.join(f'`{variant}` ({", ".join(map(str, those))})' for variant, those in seeds.items())
      parts.append(f'On {where}, about {hours:.0f} hours: {names}.\n\n')
  return f'## Not measured yet\n\nSeeds are in brackets. {"".join(parts)}' if parts else ''


def _runs(results: Results) -> str:
  """Returns the section on where each result comes from."""
  rows = [
    [
      f'[{name}](../benchmarks/paper/{name}.json)',
      f'{one["steps"]:,}',
      ', '.join(dict.fromkeys(start['commit'][:7] for start in one['starts'])),
      '; '.join(dict.fromkeys(start['machine'] for start in one['starts'])),
    ]
    for name, one in results.by_name.items()
  ]
  return f'## Runs\n\n{table(["result", "steps", "commit", "machine"], rows)}'
