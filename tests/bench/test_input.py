import json

import pytest

from terraformer.cli import main

SMALL = ['--inputs_length=64', '--targets_length=20', '--batch_size=8', '--examples=64']


def test_every_example_is_read_and_only_inputs_are_counted(capsys):
  assert main(['bench', 'input', '--json', *SMALL]) == 0
  result = json.loads(capsys.readouterr().out)
  assert result['examples'] == 64 and result['window_length'] == 70
  assert result['tokens_per_second'] == pytest.approx(64 * result['examples_per_second'])
  assert result['examples_per_second'] == pytest.approx(64 / result['seconds'])


def test_it_is_told_in_a_line(capsys):
  assert main(['bench', 'input', *SMALL]) == 0
  text = capsys.readouterr().out
  assert 'input tokens per second: 64 examples of 64 + 20 tokens' in text and text.count('\n') == 1


def test_lengths_that_do_not_fit_are_refused(capsys):
  assert main(['bench', 'input', '--targets_length=9']) == 2
  assert 'targets_length: expected at least 114 for the spans of 512 inputs, found 9' in capsys.readouterr().err
