"""Text that ends before a stop string, given out as early as is certain."""

from collections.abc import Iterator


def until_stop(pieces: Iterator[str], stops: tuple[str, ...]) -> Iterator[str]:
  """The pieces up to the first occurrence of one of the strings; what may be the beginning of one is held back."""
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
  """Characters at the end of the text that are the beginning of the stop string."""
  return next(n for n in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:n]))
