"""An evaluation for people to read."""

import shutil
import textwrap

from terraformer.eval.evaluate import Evaluation


def as_text(result: Evaluation, n_examples: int = 5) -> str:
  """Examples first, then perplexity beside the unigram model and ROUGE beside the first ten words."""
  lines = []
  for number, (source, reference, written) in enumerate(result.texts[:n_examples], 1):
    lines.append(f'--- example {number} of the {result.split} split')
    for name, text in (('source', source), ('reference', reference), ('model', written or '(nothing)')):
      lines.append(_wrapped(name, text))
  lines += [
    '',
    f'step {result.step:,}, {result.n_examples:,} examples of the {result.split} split',
    f'{"":>22}{"model":>10}{"baseline":>10}',
    f'{"perplexity":>22}{result.perplexity:>10.1f}{result.unigram_perplexity:>10.1f}  unigram model',
    f'{"ratio":>22}{result.perplexity / result.unigram_perplexity:>10.2f}{1:>10.2f}',
    f'{"token accuracy":>22}{result.accuracy:>10.1%}',
  ]
  names = {'rouge1': 'ROUGE-1', 'rouge2': 'ROUGE-2', 'rougeLsum': 'ROUGE-Lsum'}
  for key, name in names.items():
    lines.append(f'{name:>22}{result.rouge[key]:>10.2f}{result.lead_rouge[key]:>10.2f}  first ten words')
  return '\n'.join(lines)


def _wrapped(name: str, text: str, most: int = 400) -> str:
  width = min(shutil.get_terminal_size().columns, 120)
  text = ' '.join(text.split())
  shown = text if len(text) <= most else text[:most] + ' ...'
  return textwrap.fill(shown, width, initial_indent=f'{name:>10}: ', subsequent_indent=' ' * 12)
