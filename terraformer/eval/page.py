"""Writes an evaluation as a self-contained HTML page."""

import html
from pathlib import Path

import numpy as np

from terraformer.config import refused
from terraformer.eval.evaluate import Evaluation
from terraformer.eval.report import (
  baselines_of,
  counted,
  rouge_names,
  source_use_of,
  task_rouge,
  text_names,
  without_rouge,
)
from terraformer.files import write_whole
from terraformer.paths import printable

_SHOWN = 5  # examples of each kind
_OPEN_CHARACTERS = 700  # the visible part of a source; a click shows the rest
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left } th { white-space: nowrap }
article { border: 1px solid #ddd; border-radius: 6px; padding: .2rem 1rem; margin: 1rem 0 }
p { white-space: pre-wrap; margin: .5rem 0 } b { color: #666; font-weight: 600 } .model { background: #eef5ff }
svg rect { fill: #5b8fd6 } svg text { font-size: 11px; fill: #666 }
"""


def write_page(result: Evaluation, workdir: Path) -> Path:
  """Writes `evaluation_SPLIT.html` into the run's folder and returns its path.

  Raises:
    UserError: if the page cannot be written.
  """
  path = Path(workdir) / f'evaluation_{result.split}.html'
  try:
    write_whole(path, as_html(result, printable(Path(workdir).name)).encode())
  except OSError as error:
    raise refused(path, 'write', error) from error
  return path


def as_html(result: Evaluation, name: str) -> str:
  """Returns a page with results and baselines, a histogram of the examples' scores, and the best, median and worst
  examples."""
  title = html.escape(f'{name}: step {result.step:,}, {result.n_examples:,} examples of the {result.split} split')
  parts = [f'<h1>{title}</h1>', _figures(result)]
  if result.texts and not result.scores:
    parts += ['<h2>Examples</h2>', *(_example(result, index) for index in range(min(_SHOWN, len(result.texts))))]
  elif result.texts:
    parts += [_rouge(result), _by_task(result), _spread(result)]
    for heading, indices in (_chosen if result.rouge else _right_and_wrong)(result.scores).items():
      parts += [f'<h2>{heading}</h2>', *(_example(result, index) for index in indices)]
  return (
    f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head>'
    f'<body>{"".join(parts)}</body></html>\n'
  )


def _figures(result: Evaluation) -> str:
  rows = [
    ('perplexity', f'{result.perplexity:.2f}', f'{result.unigram_perplexity:.2f}'),
    ('loss, nats per token', f'{result.loss:.4f}', f'{np.log(result.unigram_perplexity):.4f}'),
    ('token accuracy', f'{result.accuracy:.1%}', ''),
  ]
  if result.loss_with_shuffled_sources is not None:
    rows.insert(2, ("loss with another text's source", f'{result.loss_with_shuffled_sources:.4f}', ''))
  if result.exact_match is not None:
    rows.append(('exact match', f'{result.exact_match:.1f}%', ''))
  if result.distinct_texts is not None:
    rows.append(('distinct texts', f'{result.distinct_texts:.1%}', ''))
    rows.append(('distinct references', f'{result.distinct_references:.1%}', ''))
  use = source_use_of(result)
  return _table(('', 'model', 'unigram model'), rows) + (f'<p>{html.escape(use.capitalize())}.</p>' if use else '')


def _rouge(result: Evaluation) -> str:
  """Returns a table of ROUGE and its baselines; empty if the texts are not scored by ROUGE."""
  if not result.rouge:
    return ''
  baselines = baselines_of(result)
  rows = []
  for key, name in rouge_names(result).items():
    low, high = result.rouge_intervals[key]
    beside = [f'{scores[key]:.2f}' for scores in baselines.values()]
    rows.append((name, f'{result.rouge[key]:.2f}', f'{low:.2f} to {high:.2f}', *beside))
  table = _table(('', 'model', '95% interval', *baselines), rows)
  return f'<h2>ROUGE, F1 times 100</h2>{table}<p>{html.escape(counted(result))}</p>'


def _by_task(result: Evaluation) -> str:
  """Returns a table of the scores of each task in a mixture; empty for a single task."""
  rows, names = [], rouge_names(result)
  for task, found in result.by_task.items():
    scores = [task_rouge(found, key) for key in names]
    rows.append((task, f'{found["texts"]:,}', f'{found["exact_match"]:.1f}%', *scores))
  return '<h2>Tasks</h2>' + _table(('', 'texts', 'exact match', *names.values()), rows) if rows else ''


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
  def row(cells, kind):
    return '<tr>' + ''.join(f'<{kind}>{html.escape(cell)}</{kind}>' for cell in cells) + '</tr>'

  return f'<table>{row(head, "th")}{"".join(row(cells, "td") for cells in rows)}</table>'


def _spread(result: Evaluation) -> str:
  """Returns a histogram of the examples' mean of ROUGE-1, -2 and -L; empty if the texts are not scored by ROUGE."""
  if not result.rouge:
    return ''
  others = ' For the other tasks, 100 for an exact match, otherwise 0.' if without_rouge(result) else ''
  caption = f'<p>Number of examples by their mean of ROUGE-1, -2 and -L.{others}</p>'
  return f'<h2>Scores of the examples</h2>{_histogram(result.scores)}{caption}'


def _histogram(scores: list[float], width: int = 600, height: int = 120) -> str:
  """Returns a histogram of the scores as SVG."""
  counts, edges = np.histogram(scores, bins=20, range=(0, 100))
  step = width / len(counts)
  bars = []
  for index, (count, low) in enumerate(zip(counts, edges, strict=False)):
    tall = height * count / max(counts.max(), 1)
    x, middle = index * step, (index + 0.5) * step
    bars.append(f'<rect x="{x + 1:.1f}" y="{height - tall + 14:.1f}" width="{step - 2:.1f}" height="{tall:.1f}"/>')
    if count:
      bars.append(f'<text x="{middle:.1f}" y="{height - tall + 11:.1f}" text-anchor="middle">{count}</text>')
    bars.append(f'<text x="{x:.1f}" y="{height + 27}">{low:.0f}</text>')
  return f'<svg viewBox="0 0 {width} {height + 32}" width="{width}" role="img">{"".join(bars)}</svg>'


def _chosen(scores: list[float]) -> dict[str, list[int]]:
  """Returns the indices of the best, median and worst examples; each example occurs once."""
  order = np.argsort(scores, kind='stable').tolist()
  shown = min(_SHOWN, -(-len(order) // 3))
  worst, best = order[:shown], order[len(order) - shown :][::-1]
  first = (len(order) - shown) // 2
  middle = order[first : first + shown]
  kinds = {'Best': best, 'Median': middle, 'Worst': worst}
  seen: set[int] = set()
  for indices in kinds.values():
    indices[:] = [index for index in indices if index not in seen]
    seen |= set(indices)
  return {kind: indices for kind, indices in kinds.items() if indices}


def _right_and_wrong(scores: list[float]) -> dict[str, list[int]]:
  """Returns the indices of the first examples that match the reference, and of the first that do not."""
  kinds = {'Right': [], 'Wrong': []}
  for index, score in enumerate(scores):
    kinds['Right' if score else 'Wrong'].append(index)
  return {kind: indices[:_SHOWN] for kind, indices in kinds.items() if indices}


def _example(result: Evaluation, index: int) -> str:
  source, reference, written = result.texts[index]
  text = html.escape(source)
  if len(source) > _OPEN_CHARACTERS:
    begun, rest = html.escape(source[:_OPEN_CHARACTERS]), html.escape(source[_OPEN_CHARACTERS:])
    text = f'{begun}<details><summary>{len(source):,} characters in all</summary>{rest}</details>'
  of_source, of_reference, of_model = text_names(result)
  score = f', score {result.scores[index]:.1f}' if result.scores else ''
  return (
    f'<article><p><b>example {index + 1}{score}</b></p>'
    f'<p><b>{of_reference}</b> {html.escape(reference)}</p><p class="model"><b>{of_model}</b> '
    f'{html.escape(written) or "(nothing)"}</p><p><b>{of_source}</b> {text}</p></article>'
  )
