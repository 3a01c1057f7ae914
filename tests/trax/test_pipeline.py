"""Lengths, ends of sequence and shifts of ids, as a config.gin states them."""

import pytest

from terraformer.trax.gin_values import GinValues
from terraformer.trax.pipeline import Pipeline, read_pipeline


def _read(*lines, lengths=None, max_length=32768):
  return read_pipeline(GinValues('\n'.join(lines), 'config.gin'), lengths, max_length)


def test_articles_have_no_end_and_are_cut_before_they_are_padded():
  found = _read(
    'PadToLength.len_map = {0: 15360, 1: 1024}',
    'TruncateToLength.len_map = {0: (15359,), 1: (1023,)}',
    'AppendValue.val = {0: [0], 1: [1]}',
    'data.Tokenize.n_reserved_ids = 100',
  )
  assert found == Pipeline(15360, 1024, inputs_eos=False, reserved_ids=100)


def test_sources_of_c4_have_an_end():
  found = _read('PadToLength.len_map = {0: 512, 1: 256}', 'AppendValue.val = {0: [1], 1: [1]}')
  assert found == Pipeline(512, 256, inputs_eos=True, reserved_ids=None)


def test_a_shorter_cut_is_the_length():
  found = _read('PadToLength.len_map = {0: 100, 1: 50}', 'TruncateToLength.len_map = {0: (30,)}')
  assert (found.inputs_length, found.targets_length) == (31, 50)


def test_values_of_a_scope_count_where_there_are_no_others():
  assert _read('training/PadToLength.len_map = {0: 100, 1: 50}').inputs_length == 100


@pytest.mark.parametrize(
  ('lengths', 'max_length', 'expected'),
  [((48, 32), 64, (48, 32)), (None, 2048, (512, 512)), (None, 64, (64, 64)), ((1, 1), 64, (2, 2))],
)
def test_lengths_that_the_file_does_not_say_are_the_checkpoints(lengths, max_length, expected):
  found = _read('PadToLength.len_map = %mira', lengths=lengths, max_length=max_length)
  assert (found.inputs_length, found.targets_length) == expected


@pytest.mark.parametrize('line', ['AppendValue.val = <mira>', 'AppendValue.val = 1', ''])
def test_a_source_whose_end_is_not_known_has_none(line):
  assert not _read(line).inputs_eos
