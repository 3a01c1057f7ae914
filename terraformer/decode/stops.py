"""Ends a stream of text before a stop string."""

from collections.abc import Iterator


class StopFilter:
  """Passes pieces of a text on up to the first stop string, and holds back only what may begin one.

  Attributes:
    has_stopped: whether a stop string was found; nothing is passed on after it.
  """

  def __init__(self, stops: tuple[str, ...]):
    self._stops, self._held = stops, ''
    self.has_stopped = False

  def feed(self, piece: str) -> str:
    """Returns the text that is certain after this piece; may be empty."""
    if self.has_stopped:
      return ''
    self._held += piece
    found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
    self.has_stopped = bool(found)
    certain = len(self._held) - max((_overlap(self._held, stop) for stop in self._stops), default=0)
    text, self._held = self._held[: min(found, default=certain)], self._held[certain:]
    return text

  def finish(self) -> str:
    """Returns what is held back, at the end of the text."""
    return '' if self.has_stopped else self._held


def until_stop(pieces: Iterator[str], stops: tuple[str, ...]) -> Iterator[str]:
  """Yields the text up to the first stop string, as early as possible: holds back only what may begin a stop string."""
  passed = StopFilter(stops)
  for piece in pieces:
    if text := passed.feed(piece):
      yield text
    if passed.has_stopped:
      return
  if text := passed.finish():
    yield text


def _overlap(text: str, stop: str) -> int:
  """Returns how many characters at the end of the text are the beginning of the stop string."""
  return next(n for n in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:n]))
