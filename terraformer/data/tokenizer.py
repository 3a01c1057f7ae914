"""A sentencepiece tokenizer: encodes text, decodes ids as a stream, and trains a vocabulary on a task's text.

Ids follow T5: 0 is padding, 1 ends a sequence, 2 is unknown, and the sentinels `<extra_id_0>`, `<extra_id_1>` ... are
the last ids, in descending order. Most sentencepiece files contain no sentinels. They are added when the file is
opened, so their number is stored separately (in the manifest of prepared data, and in a bundle). With the same number,
the ids equal those of `seqio.SentencePieceVocabulary(path, extra_ids=sentinels)`. If a file contains sentinels, as
mT5's does, those are used, whatever their ids, and none are added.
"""

import hashlib
import io
import itertools
import json
import os
import random
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import sentencepiece

from terraformer.config import UserError
from terraformer.config.words import flag
from terraformer.data import sentinels as sentinel_pieces
from terraformer.data import training_lines
from terraformer.data.addresses import path_of, reaching
from terraformer.data.downloads import local_copy

PAD_ID, EOS_ID, UNK_ID = 0, 1, 2
TRAINING_CHARACTERS = 5_000_000  # most text for training a vocabulary
_THREADS = 4  # a constant, since the result of sentencepiece's training depends on it
_SPACE, _UNKNOWN_TEXT, _REPLACEMENT = '\u2581', ' \u2047 ', '\ufffd'


class Tokenizer:
  """Text to ids and back.

  Attributes:
    size: total number of ids, including sentinels.
    sentinels: number of sentinels for span corruption.
    sentinel_ids: ids of the sentinels, starting with `<extra_id_0>`.
    model_bytes: the sentencepiece file, without added sentinels.
    fingerprint: sha256 of `model_bytes` and the number of sentinels.
  """

  pad_id, eos_id, unk_id = PAD_ID, EOS_ID, UNK_ID

  def __init__(self, model_bytes: bytes, sentinels: int, name: str = 'vocabulary'):
    self.model_bytes, self.sentinels = model_bytes, sentinels
    self.fingerprint = hashlib.sha256(b'%d\n' % sentinels + model_bytes).hexdigest()
    self._processor, self.sentinel_ids = _opened(model_bytes, sentinels, name)
    found = (self._processor.pad_id(), self._processor.eos_id(), self._processor.unk_id())
    if found != (PAD_ID, EOS_ID, UNK_ID):
      raise UserError(f'{name}: expected the ids 0, 1, 2 for padding, end of sequence and unknown, found {found}')
    self.size = self._processor.GetPieceSize()
    self._texts, self._bytes = _surfaces(self._processor)
    # Such a model adds a space before a text when encoding, and removes it when decoding.
    self._adds_space = self._processor.EncodeAsPieces('a')[0].startswith(_SPACE)

  @classmethod
  def open(cls, path: str | Path, sentinels: int = 0) -> 'Tokenizer':
    """Opens a vocabulary: a sentencepiece file, or one of the kinds in `subwords` and `bare_ids`.

    It may be at an address (`gs://`, `https://`).

    Raises:
      UserError: if the file does not exist, is not a sentencepiece model with T5's first three ids, or contains some
        but not all of the sentinels.
    """
    if os.fspath(path).startswith(('https://', 'http://')):
      path = local_copy(path)
    try:
      with reaching(path):
        model_bytes = path_of(path).read_bytes()
    except OSError as error:
      raise UserError(f'{path}: cannot read the vocabulary: {_reason(error)}') from error
    return cls.from_bytes(model_bytes, sentinels, str(path))

  @classmethod
  def from_bytes(cls, model_bytes: bytes, sentinels: int = 0, name: str = 'vocabulary') -> 'Tokenizer':
    """Makes a tokenizer from the bytes of a vocabulary's file; raises UserError as `open` does."""
    from terraformer.data import bare_ids, subwords  # not above: their tokenizers derive from this one

    if subwords.is_subword_file(model_bytes):
      return subwords.SubwordTokenizer(model_bytes, sentinels, name)
    if bare_ids.is_bare_ids_file(model_bytes):
      return bare_ids.BareIds(model_bytes, sentinels, name)
    return cls(model_bytes, sentinels, name)

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text, without an end of sequence."""
    return self._processor.EncodeAsIds(text)

  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text of ids up to the first end of sequence, without padding."""
    decoder = self.stream()
    return ''.join([decoder.feed(int(i)) for i in ids]) + decoder.finish()

  def stream(self, begins: bool = True) -> 'StreamDecoder':
    """Returns a decoder that takes ids one at a time; if not `begins`, the ids continue a text and keep their space."""
    return StreamDecoder(self._texts, self._bytes, self._adds_space and begins)


class StreamDecoder:
  """Turns ids, one at a time, into pieces of text whose concatenation equals `Tokenizer.decode` of all ids.

  A character that is encoded as bytes is returned with its last byte. Each invalid byte becomes a replacement
  character.
  """

  def __init__(self, texts: Sequence[str], byte_values: Sequence[int], drop_space: bool):
    self._texts, self._byte_values, self._drop_space = texts, byte_values, drop_space
    self._pending = b''
    self.ended = False

  def feed(self, token: int) -> str:
    """Returns the text that this id completes; empty after an end of sequence.

    Raises:
      UserError: if the id is outside the vocabulary.
    """
    if self.ended or token == PAD_ID:
      return ''
    if not 0 <= token < len(self._texts):
      raise UserError(f'vocabulary: expected ids from 0 to {len(self._texts) - 1}, found {token}')
    if token == EOS_ID:
      text = self.finish()
      self.ended = True
      return text
    if self._byte_values[token] >= 0:
      self._pending += bytes([self._byte_values[token]])
      text, self._pending = _characters(self._pending, final=False)
    else:
      text = self._texts[token]
      if self._drop_space and not self._pending:
        text = text.removeprefix(' ')
      text = self.finish() + text
    self._drop_space = False
    return text

  def finish(self) -> str:
    """Returns the remaining text at the end: replacement characters for the bytes of an incomplete character."""
    text, self._pending = _characters(self._pending, final=True)
    return text


def _opened(model_bytes: bytes, sentinels: int, name: str) -> tuple[sentencepiece.SentencePieceProcessor, list[int]]:
  """Opens a model with this many sentinels, its own or added ones; returns it and their ids."""
  if sentinels and sentinel_pieces.may_have(model_bytes):
    processor = _loaded(model_bytes, model_bytes, name)
    own = sentinel_pieces.ids_of(processor, sentinels)
    if None not in own:
      return processor, own
    if own != [None] * sentinels:
      raise UserError(
        f'{name}: expected a model with all the sentinels <extra_id_0> to <extra_id_{sentinels - 1}> or with none, '
        f'found <extra_id_{own.index(None)}> missing; '
        f'use those with {flag("TokenizerConfig.sentinels", str(own.index(None)))}'
      )
  processor = _loaded(model_bytes + sentinel_pieces.pieces(sentinels) if model_bytes else b'', model_bytes, name)
  return processor, sentinel_pieces.ids_of(processor, sentinels)


def _loaded(data: bytes, model_bytes: bytes, name: str) -> sentencepiece.SentencePieceProcessor:
  processor = sentencepiece.SentencePieceProcessor()
  try:
    if not data:
      raise RuntimeError('empty')
    processor.LoadFromSerializedProto(data)
  except (RuntimeError, TypeError) as error:
    raise UserError(f'{name} is {_other_file(model_bytes)}') from error
  return processor


def _other_file(data: bytes) -> str:
  """Says what a file is that is not a sentencepiece model, and says which file to give instead."""
  give = 'give the model itself, which is often named spiece.model, tokenizer.model or sentencepiece.model'
  if data.startswith(b'version https://git-lfs'):
    return 'a Git LFS pointer, not a sentencepiece model; fetch the file with `git lfs pull`'
  try:
    text = data.decode()
  except UnicodeDecodeError:
    return f'not a sentencepiece model ({len(data)} bytes)'
  if text.lstrip().startswith(('{', '[')) and _is_json(text):
    return f'JSON, as in the tokenizer.json of Hugging Face, not a sentencepiece model; {give}'
  if (lines := len(text.splitlines())) > 1:
    return f'a text of {lines:,} lines, as in a list of pieces, not a sentencepiece model; {give}'
  return f'not a sentencepiece model ({len(data)} bytes)'


def _is_json(text: str) -> bool:
  try:
    json.loads(text)
  except (ValueError, RecursionError):
    return False
  return True


def _characters(data: bytes, final: bool) -> tuple[str, bytes]:
  """Decodes UTF-8 as sentencepiece does, with one replacement per invalid byte; also returns an incomplete tail."""
  text = ''
  while data:
    length = next((n for n in range(1, 5) if _is_character(data[:n])), 0)
    if not length and not final and _may_continue(data):
      break
    text += data[:length].decode() if length else _REPLACEMENT
    data = data[length or 1 :]
  return text, data


def _is_character(data: bytes) -> bool:
  try:
    return len(data.decode()) == 1
  except UnicodeDecodeError:
    return False


def _may_continue(data: bytes) -> bool:
  """Whether these bytes are the start of a longer character."""
  try:
    data.decode()
  except UnicodeDecodeError as error:
    return error.start == 0 and error.reason == 'unexpected end of data'
  return False


def _surfaces(processor: sentencepiece.SentencePieceProcessor) -> tuple[list[str], list[int]]:
  """Returns the text of each id, and its byte value if it represents a byte (-1 if not)."""
  texts, values = [], []
  for i in range(processor.GetPieceSize()):
    piece = processor.IdToPiece(i)
    values.append(int(piece[3:-1], 16) if processor.IsByte(i) else -1)
    if processor.IsControl(i):
      texts.append('')
    else:
      texts.append(_UNKNOWN_TEXT if processor.IsUnknown(i) else piece.replace(_SPACE, ' '))
  return texts, values


def train_vocabulary(
  texts: Iterable[str], size: int, sentinels: int, say: Callable[[str], None] = lambda line: None
) -> Tokenizer:
  """Trains a unigram vocabulary of at most `size` ids, including sentinels; the result is deterministic.

  Characters that are too rare for an id are encoded as bytes, a newline always has its own id, and spaces are kept. So
  `decode(encode(text))` returns every text, except that U+2581 becomes a space. A text that is too small for `size`
  pieces gives a smaller vocabulary. Training reads about 5 MB, sampled evenly from the texts.

  Args:
    texts: the training texts.
    size: total number of ids.
    sentinels: how many of them are sentinels.
    say: called with a line about texts that training omits.

  Raises:
    UserError: if there is no text, or `size` is too small for the bytes and the common characters.
  """
  texts = [text for text in texts if text.strip()]
  if not texts:
    raise UserError('TokenizerConfig: there is no text to train a vocabulary on')
  random.Random(0).shuffle(texts)
  ends = itertools.accumulate(map(len, texts))
  texts = [text for text, end in zip(texts, ends, strict=True) if end - len(text) < TRAINING_CHARACTERS]
  for most in (training_lines.MOST_BYTES, training_lines.SHORT_BYTES):
    lines, left_out = training_lines.lines_of(texts, most)
    if not lines:
      raise UserError(
        'TokenizerConfig: cannot train a vocabulary, since every line contains the character U+2585, which '
        'sentencepiece reserves; remove it from the text'
      )
    try:
      trained = Tokenizer.from_bytes(_train(lines, size - sentinels), sentinels)
    except RuntimeError as error:
      failed = error  # sentencepiece fails on words of 100,000 bytes or more; retry with shorter lines
    else:
      if left_out:
        say(f'lines omitted from vocabulary training because they contain the character U+2585: {left_out:,}')
      return trained
  needed = re.search(r'required_chars\D*\d+ vs (\d+)', str(failed))
  expected = f'at least {int(needed[1]) + sentinels}' if needed else 'one that sentencepiece can train'
  raise UserError(f'TokenizerConfig.size: expected {expected} for this text, found {size}') from failed


def _train(lines: list[str], size: int) -> bytes:
  """Returns the bytes of a sentencepiece model of at most `size` ids; raises RuntimeError if sentencepiece does."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(lines),
    model_writer=model,
    vocab_size=size,
    model_type='unigram',
    hard_vocab_limit=False,
    byte_fallback=True,
    character_coverage=0.9995,
    pad_id=PAD_ID,
    eos_id=EOS_ID,
    unk_id=UNK_ID,
    bos_id=-1,
    user_defined_symbols=['\n'],
    normalization_rule_name='identity',
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
    split_digits=True,
    max_sentence_length=training_lines.MOST_BYTES,
    num_threads=_THREADS,
    minloglevel=2,
  )
  return model.getvalue()


def _reason(error: OSError) -> str:
  if isinstance(error, FileNotFoundError):
    return 'no such file'
  return os.strerror(error.errno).lower() if error.errno else str(error)
