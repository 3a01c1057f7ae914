import json
import random
import textwrap

import pytest

from terraformer.config import UserError
from terraformer.data.tokenizer import EOS_ID, Tokenizer, train_vocabulary
from tests.data.conftest import STRINGS
from tests.prepared import sentences, with_own_sentinels

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
def test_text_comes_back(tokenizer, text):
  assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize('text', TEXTS)
def test_streamed_pieces_concatenate_to_the_text(tokenizer, text):
  decoder = tokenizer.stream()
  pieces = [decoder.feed(i) for i in tokenizer.encode(text)]
  assert ''.join(pieces) + decoder.finish() == text


def test_stream_never_shows_half_a_character(tokenizer):
  decoder = tokenizer.stream()
  pieces = [decoder.feed(i) for i in tokenizer.encode('x😀y')]
  assert '😀' in pieces and not any('\ufffd' in piece for piece in pieces)


def test_decoding_is_that_of_sentencepiece_for_any_ids(tokenizer):
  rng = random.Random(0)
  pieces = tokenizer.encode('日本語😀é')
  for _ in range(3000):
    ids = [rng.choice([rng.randrange(3, tokenizer.size), rng.randrange(3, 260), rng.choice(pieces)]) for _ in range(9)]
    assert tokenizer.decode(ids) == tokenizer._processor.DecodeIds(ids)


def test_decoding_stops_at_the_end_and_skips_padding(tokenizer):
  red, tree = tokenizer.encode('red'), tokenizer.encode(' tree')
  assert tokenizer.decode([0, *red, 0, EOS_ID, *tree]) == 'red'


def test_sentinels_are_the_last_ids_downwards(tokenizer):
  assert tokenizer.sentinels == 20
  assert tokenizer.decode([tokenizer.size - 1]) == '<extra_id_0>'
  assert tokenizer.decode([tokenizer.size - 20]) == '<extra_id_19>'
  assert '<extra_id' not in tokenizer.decode([tokenizer.size - 21])


def test_ids_are_those_of_seqio(really_prepared):
  folder, said = really_prepared
  ours = Tokenizer.open(folder / 'a/local_files/vocabulary.model', 20)
  assert ours.size == said['size']
  assert [ours.encode(text) for text in STRINGS] == said['encoded'] == said['encoded_tf']


def test_training_is_repeatable_and_small_text_gives_a_small_vocabulary():
  first, second = (train_vocabulary(['tiny text', 'and more'], 8192, 10) for _ in range(2))
  assert first.fingerprint == second.fingerprint
  assert first.size < 1000


def test_another_number_of_sentinels_is_another_vocabulary(tokenizer):
  other = Tokenizer.from_bytes(tokenizer.model_bytes, 5)
  assert other.size == tokenizer.size - 15 and other.fingerprint != tokenizer.fingerprint


def test_errors_are_one_sentence(tmp_path, tokenizer):
  junk = tmp_path / 'junk.model'
  junk.write_bytes(b'no model at all')
  for path, found in [
    (junk, r'is not a sentencepiece model \(15 bytes\)'),
    (tmp_path / 'none', 'no such file'),
    (tmp_path, 'is a directory'),
  ]:
    with pytest.raises(UserError, match=f'{path.name}.*{found}'):
      Tokenizer.open(path)
  with pytest.raises(UserError, match='there is no text to train a vocabulary on'):
    train_vocabulary([' '], 400, 0)
  with pytest.raises(UserError, match='expected at least [0-9]+ for this text, found 265'):
    train_vocabulary(sentences(100), 265, 0)
  with pytest.raises(UserError, match='expected ids from 0'):
    tokenizer.decode([tokenizer.size])


OWN = [f'\u2581<extra_id_{i}>' for i in range(20)]


@pytest.mark.parametrize('names', [OWN, OWN[::-1], OWN[10:] + OWN[:10], [name[1:] for name in OWN]])
@pytest.mark.parametrize('sentinels', [20, 7])
def test_sentinels_of_a_models_own_serve_wherever_they_are(names, sentinels):
  model = with_own_sentinels(names)
  tokenizer = Tokenizer.from_bytes(model, sentinels)
  pieces = [tokenizer._processor.IdToPiece(i).lstrip('\u2581') for i in tokenizer.sentinel_ids]
  assert pieces == [f'<extra_id_{i}>' for i in range(sentinels)]
  assert tokenizer.size == Tokenizer.from_bytes(model, 0).size and tokenizer.sentinels == sentinels
  assert tokenizer.sentinel_ids[3] in tokenizer.encode('red <extra_id_3> tree')
  assert tokenizer.decode(tokenizer.encode('red <extra_id_3> tree')) == 'red <extra_id_3> tree'


@pytest.mark.parametrize(
  'names, found',
  [
    (OWN, '<extra_id_20> missing; use those with --gin_bindings=.config.TokenizerConfig.sentinels = 20'),
    (OWN[:9] + OWN[10:], '<extra_id_9> missing; use those with --gin_bindings=.config.TokenizerConfig.sentinels = 9'),
    (OWN[3:], '<extra_id_0> missing; use those with --gin_bindings=.config.TokenizerConfig.sentinels = 0'),
  ],
)
def test_a_model_with_some_of_the_sentinels_is_refused(names, found):
  with pytest.raises(UserError, match=rf'with all the sentinels <extra_id_0> to <extra_id_99> .*, found {found}'):
    Tokenizer.from_bytes(with_own_sentinels(names), 100)


def test_sentinels_that_are_added_are_told_by_id(tokenizer):
  assert tokenizer.sentinel_ids == list(range(tokenizer.size - 1, tokenizer.size - 21, -1))
  assert Tokenizer.from_bytes(tokenizer.model_bytes, 0).sentinel_ids == []


@pytest.mark.parametrize('options', [{'model_type': 'bpe'}, {'byte_fallback': False}, {'bos_id': 3}])
@pytest.mark.parametrize('names', [(), OWN])
def test_other_kinds_of_models_are_read_as_sentencepiece_reads_them(options, names):
  tokenizer = Tokenizer.from_bytes(with_own_sentinels(names, **options), 20)
  for text in ('Red tree 0.', '日 red', '  two', 'a <extra_id_3> b'):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == tokenizer._processor.DecodeIds(ids)


@pytest.mark.parametrize(
  'content, found',
  [
    (json.dumps({'version': '1.0', 'model': {'type': 'Unigram'}}, indent=2), 'is JSON, as in the tokenizer.json'),
    (json.dumps({'the': 0, 'a': 1}), 'is JSON, as in the tokenizer.json'),
    ('<pad>\t0\n</s>\t0\nthe\t-3.2\n', 'is a text of 3 lines, .* not a sentencepiece model; give the model itself'),
    ('[PAD]\n[UNK]\nthe\n', 'is a text of 3 lines, .* not a sentencepiece model; give the model itself'),
    (
      'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 791656\n',
      'fetch the file with `git lfs pull`',
    ),
  ],
)
def test_a_file_beside_the_model_is_told_for_what_it_is(tmp_path, content, found):
  path = tmp_path / 'given'
  path.write_text(content)
  with pytest.raises(UserError, match=f'given .*{found}'):
    Tokenizer.open(path)


def article(n_bytes, space=' '):
  """Words of random letters."""
  rng = random.Random(0)
  words = [''.join(rng.choices('etaoinshrdlu', k=rng.randint(2, 7))) for _ in range(300)]
  return space.join(rng.choices(words, k=n_bytes // 5))[:n_bytes]


def test_a_long_line_is_cut_at_spaces_and_teaches_what_its_words_do():
  text, told = article(1_200_000), []
  lines = textwrap.fill(text, 4000)
  one, other = (train_vocabulary([given], 500, 0, told.append) for given in (text, lines))
  assert one.size == other.size == 500 and not told
  assert len(one.encode(text)) == pytest.approx(len(other.encode(text)), rel=0.01)


def test_a_line_is_long_by_its_bytes_and_may_have_no_spaces():
  rng = random.Random(0)
  text = ''.join(rng.choices([chr(0x4E00 + i) for i in range(40)], k=360_000))
  assert len(text) < 1 << 20 < len(text.encode())
  tokenizer = train_vocabulary([text], 400, 0)
  assert len(tokenizer.encode(text[:100])) <= 101  # an id for each character, not one for each byte


@pytest.mark.slow
def test_a_word_that_sentencepiece_fails_at_is_cut():
  text = article(260_000, space='')
  assert len(train_vocabulary([text], 400, 0).encode(text)) < len(text)


def test_shorter_lines_are_tried_where_training_fails(monkeypatch):
  tried = []

  def fail_at_first(lines, size):
    tried.append([len(line.encode()) for line in lines])
    if len(tried) == 1:
      raise RuntimeError('INTERNAL')
    return with_own_sentinels(())

  monkeypatch.setattr('terraformer.data.tokenizer._train', fail_at_first)
  train_vocabulary(['é' * 5000 + ' and\nshort'], 450, 20)
  assert tried == [[10_004, 5], [4096, 4096, 1812, 5]]


def test_a_text_that_cannot_be_trained_on_is_still_said_to_be(monkeypatch):
  def fail(lines, size):
    raise RuntimeError('INTERNAL')

  monkeypatch.setattr('terraformer.data.tokenizer._train', fail)
  with pytest.raises(UserError, match='expected one that sentencepiece can train for this text, found 450'):
    train_vocabulary(['a'], 450, 20)


def test_lines_that_sentencepiece_leaves_out_are_told(tokenizer):
  told, texts = [], sentences(300) + ['one\n\n  two']
  reserved = [f'zzz{i} \u2585 zzz' for i in range(12)]
  spoilt = '\n'.join([texts[0], *reserved])
  trained = train_vocabulary([spoilt, *texts[1:]], 450, 20, told.append)
  assert trained.fingerprint == tokenizer.fingerprint
  assert told == ['lines omitted from vocabulary training because they contain the character U+2585: 12']
  with pytest.raises(
    UserError, match=r'cannot train a vocabulary, since every line contains the character U\+2585, .*; remove it'
  ):
    train_vocabulary(reserved, 450, 20)
