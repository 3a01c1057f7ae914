"""One text while it is written: its prompt, the tokens so far, and the pieces of text that they make."""

import time

from terraformer.config import DecodeConfig
from terraformer.data.tokenizer import EOS_ID
from terraformer.decode.bundle import Bundle
from terraformer.decode.decoder import Stats
from terraformer.decode.prompts import Prompts, make_prompts
from terraformer.decode.source import require_text
from terraformer.decode.stops import StopFilter
from terraformer.serving.events import FinishReason


class Text:
  """One text: how it is decoded, and what was written.

  Attributes:
    prompts: the prompt, a batch of one.
    config: how tokens are chosen.
    stats: counts and times so far; times are from the creation of this object.
  """

  def __init__(self, bundle: Bundle, prompt: str, config: DecodeConfig, engine: str):
    """Prepares a text; `engine` describes the engine, for statistics.

    Raises:
      UserError: if the prompt is not valid text, or is an empty source.
    """
    self._begun = time.perf_counter()
    require_text(prompt, may_be_empty=bundle.continues)
    self.prompts: Prompts = make_prompts(bundle, [prompt], config)
    self.config = config
    self.stats = Stats(self.prompts.read[0], self.prompts.dropped[0], self.prompts.n_new, engine=engine)
    self._stream = bundle.tokenizer.stream(begins=not (bundle.continues and prompt))
    self._filter = StopFilter(config.stop)

  def add(self, token: int) -> tuple[str, FinishReason | None]:
    """Adds a token; returns the text that is certain now, and why the text ends if it does."""
    stats = self.stats
    stats.tokens += 1
    stats.steps += 1
    stats.seconds = time.perf_counter() - self._begun
    if stats.tokens == 1:
      stats.first_token_seconds = stats.seconds
    if token == EOS_ID:
      return self._end(FinishReason.STOP)
    piece = self._filter.feed(self._stream.feed(token))
    if self._filter.has_stopped:
      return piece, FinishReason.STOP
    if stats.tokens < stats.room:
      return piece, None
    rest, reason = self._end(FinishReason.LENGTH)
    return piece + rest, reason

  def _end(self, reason: FinishReason) -> tuple[str, FinishReason]:
    """Returns the rest of the text, and why it ends; a stop string may be in the rest."""
    rest = self._filter.feed(self._stream.finish())
    return rest + self._filter.finish(), FinishReason.STOP if self._filter.has_stopped else reason
