"""A tokenizer for subword files of tensor2tensor, in which the authors' summarizer writes.

Its ids are those of `SubwordTextEncoder` in trax, plus a number of reserved ids: 0 is padding, 1 ends a sequence, and
the others are unused (here they serve as sentinels). The file does not state that number. A file that this library
stores begins with a line that does; any other is read with `RESERVED_IDS`.

Text is cut into runs of letters and digits and runs of other characters; a single space between two runs of letters is
implied. Each run is escaped, ends in an underscore, and is cut into the longest subwords from left to right.
"""

import functools
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterator

from terraformer.config import UserError
from terraformer.data.tokenizer import EOS_ID, PAD_ID, UNK_ID, StreamDecoder, Tokenizer

RESERVED_IDS = 100  # as in the authors' pipelines
_HEADER = re.compile(rb'tensor2tensor subwords, (\d{1,6}) reserved ids\n')
_QUOTES = ("'", '"')
# Characters of escapes; every text can be written with them.
_ALWAYS = set('\\_u;0123456789')
_ESCAPE = re.compile(r'\\u|\\\\|\\([0-9]+);')
_NO_CHARACTER = '\u3013'  # which the authors' code puts in the place of a number that is none
_REPLACEMENT = '\ufffd'


def is_subword_file(data: bytes) -> bool:
  """Whether bytes are a file that this library stored, or a subword file whose lines have quotes."""
  return bool(_HEADER.match(data)) or data[:1] in (b"'", b'"')


def with_reserved_ids(data: bytes, reserved_ids: int) -> bytes:
  """Returns the bytes of a subword file with a first line that states the number of its reserved ids."""
  return b'tensor2tensor subwords, %d reserved ids\n' % reserved_ids + _HEADER.sub(b'', data, count=1)


class SubwordTokenizer(Tokenizer):
  """Text to ids and back by a subword file; attributes as of `Tokenizer`, and `reserved_ids`."""

  def __init__(self, model_bytes: bytes, sentinels: int = 0, name: str = 'vocabulary'):
    header = _HEADER.match(model_bytes)
    self.reserved_ids = int(header[1]) if header else RESERVED_IDS
    self.model_bytes = with_reserved_ids(model_bytes, self.reserved_ids)
    self.fingerprint = hashlib.sha256(self.model_bytes).hexdigest()
    self.sentinels = min(sentinels, max(0, self.reserved_ids - UNK_ID))
    self.sentinel_ids = [self.reserved_ids - 1 - n for n in range(self.sentinels)]
    self._subwords = _read(self.model_bytes, name)
    self.size = self.reserved_ids + len(self._subwords)
    self._ids = {subword: id_ for id_, subword in enumerate(self._subwords, self.reserved_ids) if subword}
    self._longest = max(map(len, self._subwords))
    self._characters = {character for subword in self._subwords for character in subword} | _ALWAYS
    self._name = name
    self._encode_run = functools.lru_cache(1 << 16)(self._run_ids)

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text, without an end of sequence."""
    return list(itertools.chain.from_iterable(map(self._encode_run, _runs(text))))

  def stream(self, begins: bool = True) -> 'SubwordStream':
    """Returns a decoder that takes ids one at a time; `begins` makes no difference."""
    return SubwordStream(self._subwords, self.reserved_ids)

  def _run_ids(self, run: str) -> tuple[int, ...]:
    escaped = ''.join(
      each if each in self._characters and each != '\n' else f'\\{ord(each)};'
      for each in run.replace('\\', '\\\\').replace('_', '\\u')
    )
    escaped += '_'
    ids, start = [], 0
    while start < len(escaped):
      for end in range(min(len(escaped), start + self._longest), start, -1):
        if (id_ := self._ids.get(escaped[start:end])) is not None:
          break
      else:
        raise UserError(f'{self._name}: the subword file has no subword for the character {escaped[start]!r}')
      ids.append(id_)
      start = end
    return tuple(ids)


class SubwordStream(StreamDecoder):
  """Turns ids, one at a time, into pieces of text: a run of characters when its last subword has come."""

  def __init__(self, subwords: list[str], reserved_ids: int):
    self._subwords, self._reserved_ids = subwords, reserved_ids
    self._escaped = ''
    self._after_letters = False
    self.ended = False

  def feed(self, token: int) -> str:
    """Returns the text that this id completes; empty after an end of sequence.

    Raises:
      UserError: if the id is outside the vocabulary.
    """
    if self.ended or token == PAD_ID:
      return ''
    last = self._reserved_ids + len(self._subwords) - 1
    if not 0 <= token <= last:
      raise UserError(f'vocabulary: expected ids from 0 to {last}, found {token}')
    if token == EOS_ID:
      text = self.finish()
      self.ended = True
      return text
    if token >= self._reserved_ids:
      self._escaped += self._subwords[token - self._reserved_ids]
    *complete, self._escaped = self._escaped.split('_')
    return ''.join(map(self._run, complete))

  def finish(self) -> str:
    """Returns the text of a last run that does not end."""
    escaped, self._escaped = self._escaped, ''
    return self._run(escaped)

  def _run(self, escaped: str) -> str:
    text = _ESCAPE.sub(_unescaped, escaped)
    if not text:
      return ''
    begins_with_letters, space = _is_letter(text[0]), self._after_letters and _is_letter(text[0])
    self._after_letters = begins_with_letters
    return ' ' + text if space else text


def _unescaped(match: re.Match) -> str:
  if match[1] is None:
    return '_' if match[0] == '\\u' else '\\'
  try:
    character = chr(int(match[1]))
  except (ValueError, OverflowError):
    return _NO_CHARACTER
  # Half a surrogate pair is no character, and cannot be written.
  return _REPLACEMENT if '\ud800' <= character <= '\udfff' else character


@functools.lru_cache(maxsize=1 << 16)
def _is_letter(character: str) -> bool:
  """Whether a character is a letter or a number of any kind."""
  return unicodedata.category(character)[0] in 'LN'


def _runs(text: str) -> Iterator[str]:
  """Runs of letters and digits, and of other characters; a single space counts only where it begins the text."""
  at = 0
  for _, group in itertools.groupby(text, _is_letter):
    run = ''.join(group)
    if run != ' ' or at == 0 or at + 1 == len(text):
      yield run
    at += len(run)


def _read(data: bytes, name: str) -> list[str]:
  """The subwords of a file, without the quotes around each."""
  try:
    lines = _HEADER.sub(b'', data, count=1).decode().split('\n')
  except UnicodeDecodeError as error:
    raise UserError(f'{name}: this is not a subword file, which is a text in UTF-8') from error
  if lines[-1] == '':
    lines.pop()
  if len(lines) < 2:
    raise UserError(f'{name}: this is not a subword file, which has a line for each subword')
  return [_unquoted(line.rstrip()) for line in lines]


def _unquoted(line: str) -> str:
  return line[1:-1] if line.startswith(_QUOTES) and line[-1:] == line[:1] else line
