"""What is said of bad input is one line, and a stored config that makes no sense is refused whatever is in it."""

import json

import pytest

from terraformer.config import BlockConfig, UserError, first_line, from_dict, to_dict
from terraformer.config.base import Checked


@pytest.mark.parametrize('found', ['a\nb', 'a\r\0b', '\x1b[2J', '\u2028', '\ud800', 'x' * 1_000_000])
def test_a_message_is_one_line_that_can_be_printed_and_not_a_long_one(found):
  message = str(UserError(f'{found}: expected a name, found none'))
  assert message.isprintable() and len(message) < 1100
  assert message.endswith(': expected a name, found none')


def test_an_ordinary_message_stays_as_it_is():
  assert str(UserError('naïve.gin: expected “a”, found b')) == 'naïve.gin: expected “a”, found b'


@pytest.mark.parametrize(
  ('error', 'line'),
  [
    (ValueError('one\ntwo'), 'one'),
    (ValueError('\n\n  one\n  two'), 'one'),
    (ValueError(), 'ValueError'),
    (KeyError('a'), "'a'"),
    (SystemExit('  \n'), 'SystemExit'),
    ('a text\r\nof two lines', 'a text'),
  ],
)
def test_the_first_line_of_an_error_is_never_empty(error, line):
  assert first_line(error) == line


@pytest.mark.parametrize('kind', [[], {}, None, 3, 'Checked', 'BlockConfig ', 'x' * 5000])
def test_a_kind_that_is_none_is_refused(kind):
  with pytest.raises(UserError, match='this version has no kind of config named'):
    from_dict(to_dict(BlockConfig()) | {'kind': kind})


class _Loose(Checked):
  """A class without fields, as gin derives one from a base that it is shown."""


def test_a_class_without_fields_is_no_kind():
  with pytest.raises(UserError, match='this version has no kind of config named'):
    from_dict({'kind': f'{__name__}:_Loose'})


@pytest.mark.parametrize('depth', [20, 300, 900])
def test_configs_within_configs_without_end_are_refused(depth):
  before, after = json.dumps(to_dict(BlockConfig()) | {'projection': '?'}).split('"?"')
  with pytest.raises(UserError, match='configs are nested more than 16 levels deep'):
    from_dict(json.loads(before * depth + '0' + after * depth))
