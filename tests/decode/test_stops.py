"""Stop strings across the borders of pieces."""

import pytest

from terraformer.decode.stops import until_stop


@pytest.mark.parametrize(
  ('pieces', 'stops', 'expected'),
  [
    (['one tw', 'o three'], (), 'one two three'),
    (['one tw', 'o three'], ('two',), 'one '),
    (['one tw', 'ice'], ('two',), 'one twice'),
    (['aab', 'aabc'], ('aabc', 'x'), 'aab'),
    (['a', 'b', 'c'], ('c', 'bc'), 'a'),
    (['stop', ' here'], ('stop',), ''),
    (['ends with st'], ('stop',), 'ends with st'),
  ],
)
def test_the_text_ends_before_the_first_stop_string(pieces, stops, expected):
  assert ''.join(until_stop(iter(pieces), stops)) == expected


def test_only_what_may_be_a_beginning_is_held_back():
  source = iter(['one ', 's', 'un'])
  given = until_stop(source, ('stop',))
  assert next(given) == 'one '
  assert next(given) == 'sun'


def test_nothing_is_read_behind_a_stop_string():
  source = iter(['a stop', 'never'])
  assert list(until_stop(source, ('stop',))) == ['a ']
  assert next(source) == 'never'
