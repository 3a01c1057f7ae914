"""The lines that a vocabulary is trained on: sentencepiece leaves out some of them in silence, so they are made fit.

It leaves out a line over its limit of bytes, and one with U+2585, which it keeps for itself. The first are cut into
shorter ones; the second are counted.
"""

import re
from collections.abc import Iterable, Iterator

MOST_BYTES = 1 << 20  # of a line that sentencepiece is told to take
SHORT_BYTES = 1 << 12  # of what a longer one is cut into; from 100,000 bytes on a single word overflows its sums
RESERVED = '\u2585'
_LAST_SPACE = re.compile(r'\s(?=\S*\Z)')


def lines_of(texts: Iterable[str], most: int) -> tuple[list[str], int]:
  """The lines of texts without the blank ones, those of more than `most` bytes cut, and how many are left out."""
  lines = [line for text in texts for line in text.split('\n') if line.strip()]
  fit = [line for line in lines if RESERVED not in line]
  return [part for line in fit for part in _cut(line, most)], len(lines) - len(fit)


def _cut(line: str, most: int) -> Iterator[str]:
  """The line where it has at most so many bytes; else parts of it, cut at white space where there is some.

  The white space at a cut goes: sentencepiece puts a space before every line. Scripts without spaces, and words that
  are too long, are cut between characters.
  """
  if len(line.encode()) <= most:
    yield line
    return
  start = 0
  while start < len(line):
    # A character has at least one byte, so this slice has all that fits.
    head = line[start : start + SHORT_BYTES].encode()[:SHORT_BYTES].decode(errors='ignore')
    space = _LAST_SPACE.search(head) if start + len(head) < len(line) else None
    part = head[: space.start()] if space else head
    if part.strip():
      yield part
    start += space.end() if space else len(head)
