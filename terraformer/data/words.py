"""Splits texts of any script into words.

A word is a run of letters and digits with their marks. Everything else separates words, including every form of
apostrophe. In scripts without spaces, a word is one character: a Chinese character, a hiragana, or a letter of Thai,
Lao, Khmer or Burmese with its marks. Katakana, which spell foreign words, form runs.
"""

import functools
import re
import unicodedata

# Text and kinds have the same indices, so a regular expression over kinds finds the words.
_LETTER, _ALONE, _CLUSTER, _KATAKANA, _MARK, _STACKER, _INVISIBLE, _BETWEEN = 'LACKMSI '
_WORD = re.compile(r'L[LMSI]*|A[MSI]*|K[KMSI]*|C(?:[MI]|SC?)*')

_ZERO_WIDTH_SPACE = '\u200b'  # divides Thai and Khmer words
_APOSTROPHES = '\u02bb\u02bc'  # letters by category, and often typed as quotes
_STACKERS = '\u1039\u17d2\u1a60'  # put the next consonant below: Burmese, Khmer, Tai Tham
# Grapheme joiner and variation selectors.
_UNSEEN_MARKS = ((0x34F, 0x34F), (0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
_ALONE_RANGES = (
  (0x3005, 0x3007),  # iteration mark, closing mark and zero
  (0x3021, 0x3029),  # Hangzhou numerals
  (0x3041, 0x309F),  # hiragana
  (0x3400, 0x4DBF),
  (0x4E00, 0x9FFF),
  (0xF900, 0xFAFF),
  (0x1B001, 0x1B11F),  # old hiragana
  (0x1B150, 0x1B152),
  (0x20000, 0x3FFFF),
)
_KATAKANA_RANGES = ((0x30A1, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F), (0x1B000, 0x1B000), (0x1B155, 0x1B167))
_CLUSTER_RANGES = (
  (0x0E00, 0x0EFF),  # Thai, Lao
  (0x1000, 0x109F),  # Burmese
  (0x1780, 0x17FF),  # Khmer
  (0x1950, 0x19DF),  # Tai Le, New Tai Lue
  (0x1A20, 0x1AAF),  # Tai Tham
  (0xA9E0, 0xA9FF),
  (0xAA60, 0xAADF),  # more Burmese, Tai Viet
  (0x11700, 0x1174F),  # Ahom
)


def words(text: str) -> list[str]:
  """Returns the words of a text in order, normalized for case, composition and width."""
  return [_plain(text[start:end]) for start, end in _spans(text)]


def first_words(text: str, n_words: int) -> str:
  """Returns the text up to the end of its n-th word, unchanged; the whole text if it has fewer words."""
  spans = _spans(text)
  return text[: spans[n_words - 1][1]] if len(spans) >= n_words else text


def _spans(text: str) -> list[tuple[int, int]]:
  return [match.span() for match in _WORD.finditer(''.join(map(_kind, text)))]


def _plain(word: str) -> str:
  shown = ''.join(char for char in word if _kind(char) != _INVISIBLE)
  # Case folding can decompose a character and undo its normal form.
  return unicodedata.normalize('NFKC', unicodedata.normalize('NFKC', shown).casefold())


@functools.cache
def _kind(char: str) -> str:
  def is_in(ranges):
    return any(low <= ord(char) <= high for low, high in ranges)

  category = unicodedata.category(char)
  if category[0] == 'M':
    return _INVISIBLE if is_in(_UNSEEN_MARKS) else _STACKER if char in _STACKERS else _MARK
  if category == 'Cf' and char != _ZERO_WIDTH_SPACE:
    return _INVISIBLE
  if category[0] not in 'LN' or char in _APOSTROPHES:
    return _BETWEEN
  if is_in(_ALONE_RANGES):
    return _ALONE
  if is_in(_KATAKANA_RANGES):
    return _KATAKANA
  return _CLUSTER if category[0] == 'L' and is_in(_CLUSTER_RANGES) else _LETTER
