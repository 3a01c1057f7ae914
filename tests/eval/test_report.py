"""What an evaluation prints."""

import pytest

from terraformer.eval.report import as_text
from tests.eval.test_page import both, result


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
  monkeypatch.setenv('COLUMNS', '120')


def test_of_ascii_references_there_is_the_standard_score_alone():
  text = as_text(result([1.0, 2.0]))
  lines = [' '.join(line.split()) for line in text.splitlines()]
  assert 'ROUGE-1 12.35 10.00 to 14.00 12.35' in lines
  assert 'ROUGE counts words by the standard tokenizer: runs of ASCII letters and digits, stemmed.' in lines
  assert 'standard ROUGE' not in text


def test_of_other_references_both_scores_are_there_for_the_split_and_its_tasks():
  lines = [' '.join(line.split()) for line in as_text(both(result([1.0, 2.0]))).splitlines()]
  assert 'ROUGE-1 12.35 10.00 to 14.00 12.35' in lines
  assert 'standard ROUGE-1 45.60 40.00 to 50.00 45.60' in lines
  assert 'news 7 5.0% 12.35 12.35 12.35 12.35' in lines
  assert 'news 7 5.0% 45.60 45.60 45.60 45.60' in lines
  assert any(line.startswith('ROUGE counts words by the Unicode tokenizer') for line in lines)


@pytest.mark.parametrize('evaluation', [result([1.0]), both(result([1.0]))])
def test_columns_stand_below_their_heads(evaluation):
  lines = as_text(evaluation).splitlines()
  table = lines[next(i for i, line in enumerate(lines) if 'F1 x 100' in line) :]
  table = table[: table.index('')]
  ends = [line.index('model') + len('model') if 'model' in line else line.index('.') + 3 for line in table[:-1]]
  assert len(set(ends)) == 1
