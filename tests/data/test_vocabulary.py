import random

import pytest

from terraformer.config import UserError
from terraformer.data.vocabulary import EOS_ID, Vocabulary, train_vocabulary
from tests.data.conftest import STRINGS
from tests.prepared import sentences

TEXTS = [
  'hello',
  '',
  ' ',
  '\n',
  '  two\n\n   lines \t',
  '日本語 😀👨‍👩‍👧 é',
  'a\x00b',
  'naïve — “quoted”',
  'old <extra_id_2>',
]


@pytest.mark.parametrize('text', TEXTS)
def test_text_comes_back(vocabulary, text):
  assert vocabulary.decode(vocabulary.encode(text)) == text


@pytest.mark.parametrize('text', TEXTS)
def test_streamed_pieces_concatenate_to_the_text(vocabulary, text):
  decoder = vocabulary.stream()
  pieces = [decoder.feed(i) for i in vocabulary.encode(text)]
  assert ''.join(pieces) + decoder.finish() == text


def test_stream_never_shows_half_a_character(vocabulary):
  decoder = vocabulary.stream()
  pieces = [decoder.feed(i) for i in vocabulary.encode('x😀y')]
  assert '😀' in pieces and not any('\ufffd' in piece for piece in pieces)


def test_decoding_is_that_of_sentencepiece_for_any_ids(vocabulary):
  rng = random.Random(0)
  pieces = vocabulary.encode('日本語😀é')
  for _ in range(3000):
    ids = [rng.choice([rng.randrange(3, vocabulary.size), rng.randrange(3, 260), rng.choice(pieces)]) for _ in range(9)]
    assert vocabulary.decode(ids) == vocabulary._processor.DecodeIds(ids)


def test_decoding_stops_at_the_end_and_skips_padding(vocabulary):
  red, tree = vocabulary.encode('red'), vocabulary.encode(' tree')
  assert vocabulary.decode([0, *red, 0, EOS_ID, *tree]) == 'red'


def test_sentinels_are_the_last_ids_downwards(vocabulary):
  assert vocabulary.sentinels == 20
  assert vocabulary.decode([vocabulary.size - 1]) == '<extra_id_0>'
  assert vocabulary.decode([vocabulary.size - 20]) == '<extra_id_19>'
  assert '<extra_id' not in vocabulary.decode([vocabulary.size - 21])


def test_ids_are_those_of_seqio(really_prepared):
  folder, said = really_prepared
  ours = Vocabulary.open(folder / 'a/local_files/vocabulary.model', 20)
  assert ours.size == said['size']
  assert [ours.encode(text) for text in STRINGS] == said['encoded'] == said['encoded_tf']


def test_training_is_repeatable_and_small_text_gives_a_small_vocabulary():
  first, second = (train_vocabulary(['tiny text', 'and more'], 8192, 10) for _ in range(2))
  assert first.fingerprint == second.fingerprint
  assert first.size < 1000


def test_another_number_of_sentinels_is_another_vocabulary(vocabulary):
  other = Vocabulary.from_bytes(vocabulary.model_bytes, 5)
  assert other.size == vocabulary.size - 15 and other.fingerprint != vocabulary.fingerprint


def test_errors_are_one_sentence(tmp_path, vocabulary):
  junk = tmp_path / 'junk.model'
  junk.write_bytes(b'no model at all')
  for path, found in [(junk, 'bytes that are none'), (tmp_path / 'none', 'no such file'), (tmp_path, 'is a directory')]:
    with pytest.raises(UserError, match=f'{path.name}.*{found}'):
      Vocabulary.open(path)
  with pytest.raises(UserError, match='expected text'):
    train_vocabulary([' '], 400, 0)
  with pytest.raises(UserError, match='expected at least [0-9]+ for this text, found 265'):
    train_vocabulary(sentences(100), 265, 0)
  with pytest.raises(UserError, match='expected ids from 0'):
    vocabulary.decode([vocabulary.size])
