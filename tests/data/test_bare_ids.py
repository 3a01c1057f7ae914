"""Texts that list ids."""

import pytest

from terraformer.config import UserError
from terraformer.data.bare_ids import BareIds
from terraformer.data.tokenizer import Tokenizer

IDS = BareIds.of_size(50)


def test_ids_are_read_as_they_stand():
  assert IDS.encode(' 17 4\n 23 ') == [17, 4, 23]


def test_ids_are_written_up_to_the_end():
  assert IDS.decode([17, 4, 1, 23]) == '17 4'


def test_a_continuation_begins_with_a_space():
  stream = IDS.stream(begins=False)
  assert stream.feed(17) + stream.feed(4) + stream.finish() == ' 17 4'


@pytest.mark.parametrize('text', ['1 x', '50', '-1', '1.5', '9' * 30])
def test_a_text_of_anything_else_is_refused(text):
  with pytest.raises(UserError, match='ids from 0 to 49'):
    IDS.encode(text)


def test_what_is_stored_opens_as_any_vocabulary():
  opened = Tokenizer.from_bytes(IDS.model_bytes)
  assert isinstance(opened, BareIds) and (opened.size, opened.fingerprint) == (50, IDS.fingerprint)
