"""A tokenizer without a vocabulary: texts are the ids themselves, `17 4 23`."""

import hashlib
import re

from terraformer.config import UserError
from terraformer.data.tokenizer import EOS_ID, PAD_ID, StreamDecoder, Tokenizer

_FILE = re.compile(rb'no vocabulary, (\d{1,8}) ids\n')


def is_bare_ids_file(data: bytes) -> bool:
  """Whether bytes are what this library stores in the place of a vocabulary."""
  return bool(_FILE.fullmatch(data))


class BareIds(Tokenizer):
  """Text of ids to ids and back; attributes as of `Tokenizer`."""

  def __init__(self, model_bytes: bytes, sentinels: int = 0, name: str = 'vocabulary'):
    found = _FILE.fullmatch(model_bytes)
    if found is None:
      raise UserError(f'{name}: this file does not say how many ids there are')
    self.model_bytes, self.sentinels, self.sentinel_ids = model_bytes, 0, []
    self.fingerprint = hashlib.sha256(model_bytes).hexdigest()
    self.size = int(found[1])

  @classmethod
  def of_size(cls, size: int) -> 'BareIds':
    """Makes one of a number of ids."""
    return cls(b'no vocabulary, %d ids\n' % size)

  def encode(self, text: str) -> list[int]:
    """Returns the ids that a text lists.

    Raises:
      UserError: if it has anything but ids of this model, with spaces between them.
    """
    ids = []
    for word in text.split():
      if not word.isdecimal() or len(word) > 9 or int(word) >= self.size:
        raise UserError(
          f'input: this model has no vocabulary and reads ids from 0 to {self.size - 1} with spaces between them, '
          f'but the text has {word!r:.40}'
        )
      ids.append(int(word))
    return ids

  def stream(self, begins: bool = True) -> 'IdStream':
    """Returns a decoder that takes ids one at a time; if not `begins`, the first has a space before it."""
    return IdStream(self.size, begins)


class IdStream(StreamDecoder):
  """Turns ids, one at a time, into a text that lists them."""

  def __init__(self, size: int, begins: bool):
    self._size, self._begins = size, begins
    self.ended = False

  def feed(self, token: int) -> str:
    """Returns the id as a text, with a space before all but the first; empty at the end of sequence and after it.

    Raises:
      UserError: if the id is outside the vocabulary.
    """
    if self.ended or token == PAD_ID:
      return ''
    if not 0 <= token < self._size:
      raise UserError(f'vocabulary: expected ids from 0 to {self._size - 1}, found {token}')
    self.ended = token == EOS_ID
    if self.ended:
      return ''
    text, self._begins = f'{token}' if self._begins else f' {token}', False
    return text

  def finish(self) -> str:
    """Returns nothing: every id is complete."""
    return ''
