"""Prepares lines for vocabulary training, because sentencepiece silently skips some lines.

It skips lines over its byte limit and lines with U+2585, which it reserves. The first are cut into shorter lines; the
second are counted.
"""

import re
from collections.abc import Iterable, Iterator

MOST_BYTES = 1 << 20  # the limit for a line that is passed to sentencepiece
SHORT_BYTES = 1 << 12  # a shorter limit for a retry; a word of 100,000 bytes or more overflows sentencepiece's sums
RESERVED = '\u2585'
_LAST_SPACE = re.compile(r'\s(?=\S*\Z)')


def lines_of(texts: Iterable[str], most: int) -> tuple[list[str], int]:
  """Returns the nonblank lines of texts, cut to at most `most` bytes, and the number of omitted lines."""
  lines = [line for text in texts for line in text.split('\n') if line.strip()]
  fit = [line for line in lines if RESERVED not in line]
  return [part for line in fit for part in _cut(line, most)], len(lines) - len(fit)


def _cut(line: str, most: int) -> Iterator[str]:
  """Yields the line if it has at most `most` bytes, otherwise pieces of it, cut at white space if possible.

  White space at a cut is dropped, since sentencepiece adds a space before every line. Scripts without spaces and words
  that are too long are cut between characters.
  """
  if len(line.encode()) <= most:
    yield line
    return
  start = 0
  while start < len(line):
    # A character has at least one byte, so this slice contains everything that fits.
    head = line[start : start + SHORT_BYTES].encode()[:SHORT_BYTES].decode(errors='ignore')
    space = _LAST_SPACE.search(head) if start + len(head) < len(line) else None
    part = head[: space.start()] if space else head
    if part.strip():
      yield part
    start += space.end() if space else len(head)
