"""Text from a bundle, a token at a time.

B batch (1), S source time.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from terraformer.config import DecodeConfig, UserError
from terraformer.data.vocabulary import EOS_ID
from terraformer.decode.bundle import Bundle, open_bundle
from terraformer.decode.step import compile_decoder

_GREEDY = DecodeConfig()


@dataclasses.dataclass
class Stats:
  """What one generation took.

  Attributes:
    input_tokens: of the source that were read.
    dropped_tokens: of the source beyond what the model was trained on; they were not read.
    tokens: generated, the end of sequence included.
    first_token_seconds: from the call to the first token, compilation included.
    seconds: from the call to the last token.
  """

  input_tokens: int = 0
  dropped_tokens: int = 0
  tokens: int = 0
  first_token_seconds: float = 0.0
  seconds: float = 0.0

  @property
  def milliseconds_per_token(self) -> float:
    """Of the tokens after the first one."""
    return 1000 * (self.seconds - self.first_token_seconds) / max(self.tokens - 1, 1)


class Decoder:
  """A model that is ready to write.

  Attributes:
    bundle: what it was opened from.
    stats: of the last generation.
  """

  def __init__(self, bundle: Bundle):
    self.bundle = bundle
    self.stats = Stats()
    # JAX computes with the mapped files: what is not used is never read.
    self._weights = jax.device_put(bundle.weights, may_alias=True)

  @classmethod
  def open(cls, path: str | Path) -> 'Decoder':
    """Opens a bundle.

    Raises:
      UserError: as `open_bundle`.
    """
    return cls(open_bundle(Path(path)))

  def tokens(self, text: str, config: DecodeConfig) -> Iterator[int]:
    """Generated tokens one by one, up to the end of sequence, which is not among them.

    Raises:
      UserError: if the text is empty.
    """
    begun = time.perf_counter()
    inputs_BxS = self._encode(text)
    wanted = self.bundle.targets_length if config.max_tokens is None else config.max_tokens
    most = self.bundle.model.room_behind(self.stats.input_tokens)
    n_tokens = min(wanted, most)
    if n_tokens == 0:
      return
    room = _bucket(n_tokens, most)
    prefill, step = compile_decoder(self.bundle.model, room, self.bundle.vocabulary.size)
    cache = prefill(self._weights, inputs_BxS)
    key = jax.random.key(config.seed)
    token_B = np.zeros(1, np.int32)
    for index in range(n_tokens):
      token_B, cache = step(self._weights, cache, token_B, config.temperature, jax.random.fold_in(key, index))
      token = int(token_B[0])
      self.stats.tokens += 1
      self.stats.seconds = time.perf_counter() - begun
      if index == 0:
        self.stats.first_token_seconds = self.stats.seconds
      if token == EOS_ID:
        return
      yield token

  def generate(self, text: str, config: DecodeConfig = _GREEDY) -> Iterator[str]:
    """Pieces of text as they come; together they are the whole text.

    Args:
      text: the source; what is longer than the model was trained on is not read (see `stats.dropped_tokens`).
      config: how tokens are chosen, and how many at most.

    Raises:
      UserError: if the text is empty.
    """
    stream = self.bundle.vocabulary.stream()
    for token in self.tokens(text, config):
      if piece := stream.feed(token):
        yield piece
    if rest := stream.finish():
      yield rest

  def _encode(self, text: str) -> np.ndarray:
    if not text.strip():
      raise UserError('input: expected a text, found nothing but white space')
    ids = self.bundle.vocabulary.encode(text)
    kept = ids[: self.bundle.inputs_length - 1] + [EOS_ID]
    self.stats = Stats(input_tokens=len(kept), dropped_tokens=len(ids) + 1 - len(kept))
    inputs_BxS = np.zeros((1, _bucket(len(kept), self.bundle.inputs_length)), np.int32)
    inputs_BxS[0, : len(kept)] = kept
    return inputs_BxS


def _bucket(length: int, most: int) -> int:
  """A length that few compiled programs serve: the next power of two from 16 on, at most `most`."""
  return min(max(16, 1 << (length - 1).bit_length()), most)
