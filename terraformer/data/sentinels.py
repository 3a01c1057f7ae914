"""The sentinels of a vocabulary, `<extra_id_0>`, `<extra_id_1>` ..., which are added to a model or found in it by name.

T5's model has none, so they are added as the last ids, in descending order. mT5's model contains them as pieces, which
may have any ids and either order.
"""

import struct

import sentencepiece

_SPACE = '\u2581'


def may_have(model_bytes: bytes) -> bool:
  """Whether a sentencepiece model may have its own sentinels; a check that is cheaper than opening the model."""
  return b'<extra_id_' in model_bytes


def ids_of(processor: sentencepiece.SentencePieceProcessor, count: int) -> list[int | None]:
  """Returns the ids of the first `count` sentinels of an open model, with None for each that it lacks."""
  return [_id_of(processor, number) for number in range(count)]


def _id_of(processor: sentencepiece.SentencePieceProcessor, number: int) -> int | None:
  for name in (f'{_SPACE}<extra_id_{number}>', f'<extra_id_{number}>'):
    found = processor.PieceToId(name)  # the unknown id if there is no such piece
    if processor.IdToPiece(found) == name:
      return found
  return None


def pieces(count: int) -> bytes:
  """Returns `<extra_id_{count - 1}>` ... `<extra_id_0>` as user-defined pieces in sentencepiece's wire format.

  A repeated field may be split within a message, so appending these bytes to a model adds the pieces to it.
  """
  message = b''
  for i in reversed(range(count)):
    text = f'{_SPACE}<extra_id_{i}>'.encode()
    piece = b'\x0a' + bytes([len(text)]) + text + b'\x15' + struct.pack('<f', 0.0) + b'\x18\x04'
    message += b'\x0a' + bytes([len(piece)]) + piece
  return message
