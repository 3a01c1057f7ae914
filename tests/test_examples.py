"""The examples run as they stand, and the script and its notebook are the same program."""

import contextlib
import io
import json
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / 'examples'


def _cells(name: str) -> list[str]:
  """The source of a notebook's code cells."""
  cells = json.loads((EXAMPLES / name).read_text(encoding='utf-8'))['cells']
  return [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']


def _output_of_cells(name: str) -> str:
  """What a notebook prints, its cells run one after another."""
  scope, output = {'__name__': '__main__'}, io.StringIO()
  with contextlib.redirect_stdout(output):
    for number, source in enumerate(_cells(name)):
      exec(compile(source, f'{name}, cell {number}', 'exec'), scope)
      print()  # cells have outputs of their own
  return output.getvalue()


def test_the_sparse_layer_learns_to_copy(capsys):
  runpy.run_path(str(EXAMPLES / 'sparse_ff_copy.py'), run_name='__main__')
  written = capsys.readouterr().out
  assert 'abadfacefeedbackhope -> abadfacefeedbackhope' in written
  assert 'of 128 rows of weights a token read 16' in written


def test_the_notebook_is_the_script():
  script = (EXAMPLES / 'sparse_ff_copy.py').read_text(encoding='utf-8')
  assert all(cell.strip() in script for cell in _cells('sparse_ff_copy.ipynb'))


@pytest.mark.slow
def test_a_model_learns_summaries_by_heart():
  written = _output_of_cells('summaries_by_heart.ipynb')
  assert 'of 19 summaries are known by heart' in written
  assert int(written.split(' of 19 summaries')[0].rsplit(maxsplit=1)[-1]) >= 17
