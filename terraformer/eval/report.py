"""Formats an evaluation as text."""

import shutil
import textwrap
from pathlib import Path

from terraformer.data.scores import STANDARD_TYPES, RougeTokenizer
from terraformer.eval.evaluate import Evaluation
from terraformer.paths import printable
from terraformer.training.source_use import source_use

# The paper calls the last one R-LSum, and ROUGE-L of a whole text R-LSent.
ROUGE_NAMES = {'rouge1': 'ROUGE-1', 'rouge2': 'ROUGE-2', 'rougeL': 'ROUGE-L, R-LSent', 'rougeLsum': 'ROUGE-Lsum'}
_STANDARD_NAMES = {key: f'standard {name}' for key, name in zip(STANDARD_TYPES, ROUGE_NAMES.values(), strict=True)}
_COUNTED = {
  RougeTokenizer.STANDARD: 'ROUGE uses the words of the standard tokenizer: stemmed runs of ASCII letters and digits.',
  RougeTokenizer.UNICODE: (
    'ROUGE uses the words of the Unicode tokenizer, unstemmed, since not all references are ASCII. Standard ROUGE, as '
    'in most published results, uses stemmed runs of ASCII letters and digits.'
  ),
}


def as_text(result: Evaluation, n_examples: int = 5) -> str:
  """Returns examples, perplexity with that of the unigram model, whether the model uses its source, and scores of the
  texts with the baselines of their tasks."""
  lines = []
  for number, (source, reference, written) in enumerate(result.texts[:n_examples], 1):
    lines.append(f'--- example {number} of the {result.split} split')
    for name, text in zip(text_names(result), (source, reference, written or '(nothing)'), strict=True):
      lines.append(_wrapped(name, text))
  lines += [
    '',
    f'step {result.step:,}, {result.n_examples:,} examples of the {result.split} split',
    f'{"":>18}{"model":>10}{"baseline":>10}',
    f'{"perplexity":>18}{result.perplexity:>10.1f}{result.unigram_perplexity:>10.1f}  unigram model',
    f'{"ratio":>18}{result.perplexity / result.unigram_perplexity:>10.2f}{1:>10.2f}',
    f'{"token accuracy":>18}{result.accuracy:>10.1%}',
  ]
  if use := source_use_of(result):
    lines += ['', use]
  if not result.texts:
    return '\n'.join(lines)
  if result.exact_match is not None:
    lines += [*_scores(result), *_tasks(result)]
  if result.rouge:
    lines += ['', textwrap.fill(counted(result), _terminal_width())]
  page = Path(result.predictions).with_suffix('.html').name
  return '\n'.join([*lines, f'\n{printable(result.predictions)} has all texts; {page} shows {_shown(result)}'])


def source_use_of(result: Evaluation) -> str:
  """Returns a sentence on whether the model uses its source; empty if it has none."""
  shuffled = result.loss_with_shuffled_sources
  return '' if shuffled is None else source_use(result.loss, shuffled)


def text_names(result: Evaluation) -> tuple[str, str, str]:
  """Returns the names of the three texts of an example."""
  return ('prompt', 'its text', 'model') if result.exact_match is None else ('source', 'reference', 'model')


def baselines_of(result: Evaluation) -> dict[str, dict[str, float]]:
  """Returns the ROUGE of the baselines that suit the data, by name."""
  rows = {'first ten words': result.lead_rouge, 'first three sentences': result.lead3_rouge}
  return {name: scores for name, scores in rows.items() if scores}


def rouge_names(result: Evaluation) -> dict[str, str]:
  """Returns the names of the ROUGE types in an evaluation, by their keys."""
  return {key: name for key, name in (ROUGE_NAMES | _STANDARD_NAMES).items() if key in result.rouge}


def counted(result: Evaluation) -> str:
  """Returns a note on the tokenizer of ROUGE and on texts that do not count; empty without ROUGE."""
  others = without_rouge(result)
  left_out = f' It does not count the texts of {", ".join(others)}.' if others else ''
  tokenizer = result.rouge_tokenizer
  return _COUNTED[tokenizer] + left_out if result.rouge and tokenizer else ''


def without_rouge(result: Evaluation) -> list[str]:
  """Returns the tasks of a mixture that are not scored by ROUGE."""
  return [task for task, found in result.by_task.items() if not found.keys() & set(ROUGE_NAMES)]


def task_rouge(found: dict[str, float], key: str) -> str:
  """Returns one ROUGE type of a task in a mixture as text, or a dash if the task does not have it."""
  return f'{found[key]:.2f}' if key in found else '-'


def _scores(result: Evaluation) -> list[str]:
  """Returns a table of ROUGE and its baselines, if the texts are scored by ROUGE, exact match, and distinct texts."""
  baselines, names = baselines_of(result), rouge_names(result)
  width = max(18, *map(len, ['', *names.values()]))
  lines = ['']
  if names:
    heads = ''.join(f'{name:>23}' for name in baselines)
    lines = [f'\n{"F1 x 100":>{width}}{"model":>10}{"95% interval":>18}{heads}']
  for key, name in names.items():
    low, high = result.rouge_intervals[key]
    beside = ''.join(f'{of_baseline[key]:>23.2f}' for of_baseline in baselines.values())
    lines.append(f'{name:>{width}}{result.rouge[key]:>10.2f}{f"{low:.2f} to {high:.2f}":>18}{beside}')
  lines.append(f'{"exact match":>{width}}{result.exact_match:>9.1f}%')
  if result.distinct_texts is not None:
    lines.append(
      f'{"distinct texts":>{width}}{result.distinct_texts:>10.1%}  ({result.distinct_references:.1%} of the references)'
    )
  return lines


def _tasks(result: Evaluation) -> list[str]:
  """Returns tables of the scores of each task in a mixture; those of the standard tokenizer are in a separate table."""
  lines, width = [], max(18, *map(len, ['', *result.by_task]))
  kinds = [{key: name for key, name in of.items() if key in result.rouge} for of in (ROUGE_NAMES, _STANDARD_NAMES)]
  for names in ([names for names in kinds if names] or [{}]) if result.by_task else ():
    head = ''.join(f'{name:>{max(18, len(name) + 2)}}' for name in names.values())
    lines.append(f'\n{"task":>{width}}{"texts":>10}{"exact match":>13}{head}')
    for task, found in result.by_task.items():
      scores = ''.join(f'{task_rouge(found, key):>{max(18, len(name) + 2)}}' for key, name in names.items())
      lines.append(f'{task:>{width}}{found["texts"]:>10,}{found["exact_match"]:>12.1f}%{scores}')
  return lines


def _shown(result: Evaluation) -> str:
  """Returns which examples the page shows, in words."""
  if result.rouge:
    return 'the best, median and worst'
  return 'the first ones' if result.exact_match is None else 'the first right and wrong ones'


def _wrapped(name: str, text: str, most: int = 400) -> str:
  text = ' '.join(text.split())
  shown = text if len(text) <= most else text[:most] + ' ...'
  return textwrap.fill(shown, _terminal_width(), initial_indent=f'{name:>10}: ', subsequent_indent=' ' * 12)


def _terminal_width() -> int:
  return min(shutil.get_terminal_size().columns, 120)
