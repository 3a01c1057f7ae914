"""The file that an evaluation goes on with."""

import contextlib

import pytest

from terraformer.config import UserError
from terraformer.eval.predictions import Predictions

PAIRS = [('a source', 'its reference'), ('another', 'its own')]


def opened(folder):
  return contextlib.closing(Predictions(folder, 'test', {'step': 3}))


def test_a_second_evaluation_at_the_same_time_is_refused(tmp_path):
  with opened(tmp_path) as predictions:
    predictions.add(PAIRS[:1], ['written'])
    with pytest.raises(UserError, match='another evaluation of this split is running'):
      Predictions(tmp_path, 'test', {'step': 3})
  with opened(tmp_path) as predictions:
    assert predictions.texts == ['written']


def test_rows_of_other_examples_are_refused(tmp_path):
  with opened(tmp_path) as predictions:
    predictions.add([PAIRS[0], PAIRS[0]], ['written', 'written'])
    predictions.require(PAIRS[:1])
    with pytest.raises(UserError, match='evaluation_test.jsonl, line 2: this is not example 2 of the split'):
      predictions.require(PAIRS)


def test_only_a_newline_ends_a_row(tmp_path):
  odd = ''.join(['\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\x85', '\u2028', '\u2029', '\r'])
  with opened(tmp_path) as predictions:
    predictions.add(PAIRS, [f'a{odd}b', 'written'])
    path = predictions.path
  path.write_bytes(path.read_bytes().replace(b', "prediction"', b',\r "prediction"'))  # white space, as JSON sees it
  with opened(tmp_path) as predictions:
    assert predictions.texts == [f'a{odd}b', 'written']
