"""Ends a stream of text before a stop string."""

from collections.abc import Iterator


def until_stop(pieces: Iterator[str], stops: tuple[str, ...]) -> Iterator[str]:
  """Yields the text up to the first stop string, as early as possible: holds back only what may begin a stop string."""
  held = ''
  for piece in pieces:
    held += piece
    found = [at for stop in stops if (at := held.find(stop)) >= 0]
    if found:
      if min(found):
        yield held[: min(found)]
      return
    certain = len(held) - max((_overlap(held, stop) for stop in stops), default=0)
    if certain:
      yield held[:certain]
      held = held[certain:]
  if held:
    yield held


def _overlap(text: str, stop: str) -> int:
  """Returns how many characters at the end of the text are the beginning of the stop string."""
  return next(n for n in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:n]))
