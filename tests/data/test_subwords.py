"""Subword files of tensor2tensor, against ids and texts that trax 1.4.1 computed with the file `small.subword`."""

import json
from pathlib import Path

import pytest

from terraformer.config import UserError
from terraformer.data.subwords import RESERVED_IDS, SubwordTokenizer, with_reserved_ids
from terraformer.data.tokenizer import EOS_ID, Tokenizer

FOLDER = Path(__file__).parent / 'vectors'
FILE = FOLDER / 'small.subword'
VECTORS = json.loads((FOLDER / 'small_subword.json').read_text())


@pytest.fixture(scope='module')
def subwords():
  return Tokenizer.open(FILE)


def _shifted(ids):
  return [id_ + RESERVED_IDS for id_ in ids]


def test_a_subword_file_opens_as_any_vocabulary(subwords):
  assert isinstance(subwords, SubwordTokenizer)
  assert subwords.size == RESERVED_IDS + len(FILE.read_text().splitlines())


def test_ids_are_those_of_trax(subwords):
  different = [case['text'] for case in VECTORS['encode'] if subwords.encode(case['text']) != _shifted(case['ids'])]
  assert not different


def test_decoded_texts_are_those_of_trax(subwords):
  cases = VECTORS['encode'] + VECTORS['decode']
  different = [case for case in cases if subwords.decode(_shifted(case['ids'])) != case['decoded']]
  assert not different


def test_a_stream_gives_a_run_of_letters_when_it_is_complete(subwords):
  stream, ids = subwords.stream(), subwords.encode('naive methods.')
  pieces = [stream.feed(id_) for id_ in ids]
  assert [piece for piece in pieces if piece] == ['naive', ' methods', '.']
  assert stream.finish() == ''


def test_the_end_of_sequence_completes_the_last_run(subwords):
  stream, ids = subwords.stream(), subwords.encode('naive')
  half = [*ids[:-1], EOS_ID]  # without the subword that ends the run
  assert ''.join(map(stream.feed, half)) == 'naive'[: len(subwords.decode(ids[:-1]))]
  assert stream.ended and stream.feed(ids[-1]) == ''


def test_padding_and_reserved_ids_have_no_text(subwords):
  ids = subwords.encode('one')
  assert subwords.decode([0, 2, *ids, 99]) == 'one'


@pytest.mark.parametrize('id_', [-1, 10**6])
def test_an_id_outside_the_vocabulary_is_refused(subwords, id_):
  with pytest.raises(UserError, match='expected ids from 0 to'):
    subwords.decode([id_])


@pytest.mark.parametrize(('number', 'text'), [(55296, '\ufffd'), (99999999, '\u3013')])
def test_an_escape_that_is_no_character_is_replaced(number, text):
  characters = '\\0123456789;_'
  tokenizer = Tokenizer.from_bytes(''.join(f"'{each}'\n" for each in characters).encode())
  assert tokenizer.decode([RESERVED_IDS + characters.index(each) for each in f'\\{number};_']) == text


def test_the_stored_file_states_its_reserved_ids(subwords):
  opened = Tokenizer.from_bytes(with_reserved_ids(FILE.read_bytes(), 7))
  assert opened.encode('a b') == [id_ - RESERVED_IDS + 7 for id_ in subwords.encode('a b')]


def test_the_stored_file_is_the_same_vocabulary(subwords):
  assert Tokenizer.from_bytes(subwords.model_bytes).fingerprint == subwords.fingerprint


def test_sentinels_are_reserved_ids():
  assert Tokenizer.open(FILE, 3).sentinel_ids == [99, 98, 97]


def test_sentinels_are_at_most_the_reserved_ids():
  assert Tokenizer.open(FILE, 1000).sentinels == RESERVED_IDS - 2


@pytest.mark.parametrize('data', [b"'a_'", b"'a_'\n'\xff'\n"], ids=['one line', 'not UTF-8'])
def test_another_file_is_refused(data):
  with pytest.raises(UserError, match='this is not a subword file'):
    Tokenizer.from_bytes(data)


def test_a_file_without_a_character_that_every_text_may_need_is_refused_when_it_is_needed():
  tokenizer = Tokenizer.from_bytes(b"'a_'\n'b'\n'_'\n")
  with pytest.raises(UserError, match='no subword for the character'):
    tokenizer.encode('z')
