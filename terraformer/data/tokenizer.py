"""A sentencepiece vocabulary: text to ids, ids to text as they come, and training one on a task's own text.

Ids are laid out as in T5: 0 pads, 1 ends a sequence, 2 is unknown, and the sentinels `<extra_id_0>`, `<extra_id_1>` ...
are the last ids, counted downwards. Most sentencepiece files hold no sentinels: they are added when one is opened, so
their number travels beside the file (in the manifest of prepared data, and in a bundle). With the same number this is
id for id `seqio.SentencePieceVocabulary(path, extra_ids=sentinels)`. Of a file that holds sentinels, as mT5's does,
those serve, wherever they stand, and none are added.
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
from terraformer.data import sentinels as sentinel_pieces
from terraformer.data import training_lines
from terraformer.data.addresses import path_of, reaching

PAD_ID, EOS_ID, UNK_ID = 0, 1, 2
TRAINING_CHARACTERS = 5_000_000  # of text that a vocabulary is trained on at most
_THREADS = 4  # a constant, since the sums of sentencepiece's training depend on it
_SPACE, _UNKNOWN_TEXT, _REPLACEMENT = '\u2581', ' \u2047 ', '\ufffd'


class Tokenizer:
  """Text to ids and back.

  Attributes:
    size: ids in all, sentinels included.
    sentinels: how many there are for span corruption.
    sentinel_ids: their ids, that of `<extra_id_0>` first.
    model_bytes: the sentencepiece file, without the sentinels that are added to it.
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
    # Such a model puts a space before a text when it encodes it; decoding takes the space away again.
    self._adds_space = self._processor.EncodeAsPieces('a')[0].startswith(_SPACE)

  @classmethod
  def open(cls, path: str | Path, sentinels: int = 0) -> 'Tokenizer':
    """The vocabulary in a sentencepiece file, which may lie at an address (`gs://`).

    Raises:
      UserError: if there is no such file, it is not a sentencepiece model with T5's first three ids, or it has some of
        the sentinels itself but not all of them.
    """
    try:
      with reaching(path):
        model_bytes = path_of(path).read_bytes()
    except OSError as error:
      raise UserError(f'{path}: expected a sentencepiece model, found {_reason(error)}') from error
    return cls(model_bytes, sentinels, str(path))

  @classmethod
  def from_bytes(cls, model_bytes: bytes, sentinels: int = 0) -> 'Tokenizer':
    """The vocabulary in the bytes of a sentencepiece file; raises UserError as `open` does."""
    return cls(model_bytes, sentinels)

  def encode(self, text: str) -> list[int]:
    """The ids of a text, without an end of sequence."""
    return self._processor.EncodeAsIds(text)

  def decode(self, ids: Iterable[int]) -> str:
    """The text of ids up to the first end of sequence, without padding."""
    decoder = self.stream()
    return ''.join([decoder.feed(int(i)) for i in ids]) + decoder.finish()

  def stream(self, begins: bool = True) -> 'StreamDecoder':
    """A decoder that takes ids one by one, those that begin a text or, with a space before them, go on with one."""
    return StreamDecoder(self._texts, self._bytes, self._adds_space and begins)


class StreamDecoder:
  """Turns ids, one by one, into pieces of text that concatenate to `Tokenizer.decode` of them all.

  A character that the vocabulary spells in bytes comes out with its last byte; bytes that are no character become one
  replacement character each.
  """

  def __init__(self, texts: Sequence[str], byte_values: Sequence[int], drop_space: bool):
    self._texts, self._byte_values, self._drop_space = texts, byte_values, drop_space
    self._pending = b''
    self.ended = False

  def feed(self, token: int) -> str:
    """The text that is certain with this id; empty after an end of sequence.

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
    """What is left when no more ids come: replacement characters for the bytes of an unfinished character."""
    text, self._pending = _characters(self._pending, final=True)
    return text


def _opened(model_bytes: bytes, sentinels: int, name: str) -> tuple[sentencepiece.SentencePieceProcessor, list[int]]:
  """An open model with so many sentinels, its own or else added ones, and their ids."""
  if sentinels and sentinel_pieces.may_have(model_bytes):
    processor = _loaded(model_bytes, model_bytes, name)
    own = sentinel_pieces.ids_of(processor, sentinels)
    if None not in own:
      return processor, own
    if own != [None] * sentinels:
      raise UserError(
        f'{name}: expected a model with all the sentinels <extra_id_0> to <extra_id_{sentinels - 1}> or with none, '
        f'found <extra_id_{own.index(None)}> missing; set TokenizerConfig.sentinels = {own.index(None)}'
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
    raise UserError(f'{name}: expected a sentencepiece model, found {_other_file(model_bytes)}') from error
  return processor


def _other_file(data: bytes) -> str:
  """What a file is that is no sentencepiece model, and what to give in its place."""
  give = 'give the model itself, which is often named spiece.model, tokenizer.model or sentencepiece.model'
  if data.startswith(b'version https://git-lfs'):
    return 'the pointer that Git LFS leaves in the place of a file; fetch the file with `git lfs pull`'
  try:
    text = data.decode()
  except UnicodeDecodeError:
    return f'{len(data)} bytes that are none'
  if text.lstrip().startswith(('{', '[')) and _is_json(text):
    return f'JSON, as in the tokenizer.json of Hugging Face; {give}'
  if (lines := len(text.splitlines())) > 1:
    return f'a text of {lines:,} lines, as in a list of pieces; {give}'
  return f'{len(data)} bytes that are none'


def _is_json(text: str) -> bool:
  try:
    json.loads(text)
  except (ValueError, RecursionError):
    return False
  return True


def _characters(data: bytes, final: bool) -> tuple[str, bytes]:
  """Decodes UTF-8 as sentencepiece does, one replacement a wrong byte, and returns the bytes that await more."""
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
  """Whether these bytes are the beginning of a longer character."""
  try:
    data.decode()
  except UnicodeDecodeError as error:
    return error.start == 0 and error.reason == 'unexpected end of data'
  return False


def _surfaces(processor: sentencepiece.SentencePieceProcessor) -> tuple[list[str], list[int]]:
  """Each id's text, and the value of those that stand for a byte (-1 for the others)."""
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
  """Trains a unigram vocabulary of at most `size` ids, sentinels included; the same texts always give the same one.

  Characters that are too rare for an id are spelled in bytes, a newline always has its own id, and spaces are kept as
  they are, so every text comes back from `decode(encode(text))`, except that U+2581 comes back as a space. A text that
  is too small for `size` pieces gives a smaller vocabulary. About 5 MB are read, of texts drawn evenly.

  Args:
    texts: to train on.
    size: ids in all.
    sentinels: how many of them are sentinels.
    say: is told, in a line, what training leaves out.

  Raises:
    UserError: if there is no text, or `size` does not hold the bytes and the common characters.
  """
  texts = [text for text in texts if text.strip()]
  if not texts:
    raise UserError('TokenizerConfig: expected text to train a vocabulary on, found none')
  random.Random(0).shuffle(texts)
  ends = itertools.accumulate(map(len, texts))
  texts = [text for text, end in zip(texts, ends, strict=True) if end - len(text) < TRAINING_CHARACTERS]
  for most in (training_lines.MOST_BYTES, training_lines.SHORT_BYTES):
    lines, left_out = training_lines.lines_of(texts, most)
    if not lines:
      raise UserError(
        'TokenizerConfig: expected text to train a vocabulary on, found the character U+2585, which sentencepiece '
        'keeps for itself, in every line; remove it'
      )
    try:
      trained = Tokenizer.from_bytes(_train(lines, size - sentinels), sentinels)
    except RuntimeError as error:
      failed = error  # a word of 100,000 bytes and more makes sentencepiece fail: then longer lines are cut as well
    else:
      if left_out:
        say(f'lines left out of the training of the vocabulary, since they have the character U+2585: {left_out:,}')
      return trained
  needed = re.search(r'required_chars\D*\d+ vs (\d+)', str(failed))
  expected = f'at least {int(needed[1]) + sentinels}' if needed else 'one that sentencepiece can train'
  raise UserError(f'TokenizerConfig.size: expected {expected} for this text, found {size}') from failed


def _train(lines: list[str], size: int) -> bytes:
  """The bytes of a sentencepiece model of at most so many ids; raises RuntimeError where sentencepiece does."""
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
