"""Damaged input of every kind gives a valid result or a sentence: a small share of what `benchmarks/fuzz.py` does."""

import pytest

from benchmarks import fuzz


@pytest.mark.parametrize('kind', fuzz.SUBJECTS)
def test_damaged_input_gives_a_valid_result_or_a_sentence(kind, tmp_path):
  result = fuzz.fuzz(fuzz.SUBJECTS[kind], tmp_path, mutations=60, seed=1)
  assert result.failures == {}
  assert result.mutations == 60 and result.valid and result.refused
