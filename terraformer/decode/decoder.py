"""Text from a bundle, a token at a time.

B batch, S source time, W beams.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import DecodeConfig
from terraformer.data.vocabulary import EOS_ID
from terraformer.decode import step as steps
from terraformer.decode.beam import Beams
from terraformer.decode.bundle import Bundle, open_bundle
from terraformer.decode.sample import Written, draw_of, rules_of
from terraformer.decode.source import require_text
from terraformer.decode.stops import until_stop
from terraformer.models.parameters import flatten

_GREEDY = DecodeConfig()
# Tokens that a cache has room for at first; then it doubles, so that a step never reads much more than is filled.
_FIRST_ROOM = 64


@dataclasses.dataclass
class Stats:
  """What one generation took.

  Attributes:
    input_tokens: of the source that were read; of a batch, of all sources.
    dropped_tokens: of the source beyond what the model was trained on; they were not read.
    room: tokens that the model's positions leave room for, behind the longest source.
    tokens: generated, the end of sequence included; of a batch, those of all texts.
    first_token_seconds: from the call to the first token, compilation included.
    seconds: from the call to the last token.
    steps: of the decoder.
  """

  input_tokens: int = 0
  dropped_tokens: int = 0
  room: int = 0
  tokens: int = 0
  first_token_seconds: float = 0.0
  seconds: float = 0.0
  steps: int = 0

  @property
  def milliseconds_per_token(self) -> float:
    """Of the steps after the first one; a batch writes a token of each text in a step."""
    return 1000 * (self.seconds - self.first_token_seconds) / max(self.steps - 1, 1)


class Decoder:
  """A model that is ready to write.

  Attributes:
    bundle: what it was opened from.
    stats: of the last generation.
  """

  def __init__(self, bundle: Bundle):
    self.bundle = bundle
    self.stats = Stats()
    self._begun = 0.0
    self._model = steps.decoding_form(bundle.model)
    # JAX computes with the mapped files: what is not used is never read.
    self._weights = jax.device_put(bundle.weights, may_alias=True)
    self._step_weights = steps.step_weights(flatten(bundle.weights))

  @classmethod
  def open(cls, path: str | Path, verify: bool | None = None) -> 'Decoder':
    """Opens a bundle; `verify` as in `open_bundle`.

    Raises:
      UserError: as `open_bundle`.
    """
    return cls(open_bundle(Path(path), verify))

  def generate(self, text: str, config: DecodeConfig = _GREEDY) -> Iterator[str]:
    """Pieces of text as they come; together they are the whole text. Beam search gives it in one piece.

    Args:
      text: the source; what is longer than the model was trained on is not read (see `stats.dropped_tokens`).
      config: how tokens are chosen, and how many at most.

    Raises:
      UserError: if it is not a text, or an empty one.
    """
    return until_stop(self._pieces(self.tokens(text, config)), config.stop)

  def generate_batch(self, texts: Sequence[str], config: DecodeConfig = _GREEDY) -> list[str]:
    """Whole texts, one for each source, decoded side by side; the same that each would become alone.

    Raises:
      UserError: if one is not a text, or an empty one.
    """
    if not texts:
      return []
    if config.beams > 1:
      return [''.join(self.generate(text, config)) for text in texts]
    rows: list[list[int]] = [[] for _ in texts]
    ended_B = np.zeros(len(texts), bool)
    for token_B in self._token_rows(texts, config):
      for row, token, ended in zip(rows, token_B.tolist(), ended_B, strict=True):
        if not ended and token != EOS_ID:
          row.append(token)
      self.stats.tokens += int((~ended_B).sum())
      ended_B |= token_B == EOS_ID
      if ended_B.all():
        break
    return [''.join(until_stop(self._pieces(row), config.stop)) for row in rows]

  def tokens(self, text: str, config: DecodeConfig = _GREEDY) -> Iterator[int]:
    """Generated tokens one by one, up to the end of sequence, which is not among them.

    Raises:
      UserError: if it is not a text, or an empty one.
    """
    if config.beams > 1:
      yield from self._search(text, config)
      return
    for token_B in self._token_rows([text], config):
      self.stats.tokens += 1
      if token_B[0] == EOS_ID:
        return
      yield int(token_B[0])

  def _pieces(self, tokens) -> Iterator[str]:
    stream = self.bundle.vocabulary.stream()
    for token in tokens:
      if piece := stream.feed(token):
        yield piece
    if rest := stream.finish():
      yield rest

  def _token_rows(self, texts: Sequence[str], config: DecodeConfig) -> Iterator[np.ndarray]:
    """The next token of every text, token_B, again and again; also of texts that have ended."""
    inputs_BxS, n_tokens = self._read(texts, config)
    if not n_tokens:
      return
    step = steps.compile_step(self._model, self.bundle.vocabulary.size, rules_of(config))
    draw = draw_of(config)
    progress, room = self._begin(inputs_BxS, n_tokens, config)
    token_B = jnp.zeros(len(texts), jnp.int32)
    pending: list[jax.Array] = []
    for index in range(n_tokens):
      progress, room = self._with_room(progress, room, index, n_tokens)
      token_B, progress = step(self._step_weights, progress, token_B, draw)
      # The next step is under way before this token is looked at: the machine need not wait for Python.
      pending.append(token_B)
      if len(pending) > 1:
        yield self._arrived(pending.pop(0))
    yield self._arrived(pending.pop())

  def _search(self, text: str, config: DecodeConfig) -> tuple[int, ...]:
    """The tokens of beam search."""
    inputs_1xS, n_tokens = self._read([text], config)
    if not n_tokens:
      return ()
    step = steps.compile_beam_step(self._model, self.bundle.vocabulary.size, config.no_repeat_ngram)
    progress, room = self._begin(inputs_1xS, n_tokens, config)
    progress = steps.repeated(progress, config.beams)
    beams = Beams(config.beams, config.length_penalty, EOS_ID)
    token_W = np.zeros(config.beams, np.int32)
    for index in range(n_tokens):
      progress, room = self._with_room(progress, room, index, n_tokens)
      score_W = np.array([hypothesis.score for hypothesis in beams.live], np.float32)
      best, progress = step(self._step_weights, progress, token_W, score_W)
      parents = beams.advance(*(np.asarray(each).tolist() for each in best))
      self._arrived(best[0])
      if beams.is_done:
        break
      if parents != list(range(config.beams)):
        progress = steps.reorder(progress, jnp.array(parents))
      token_W = np.array([hypothesis.tokens[-1] for hypothesis in beams.live], np.int32)
      progress = steps.entered(progress, token_W)
    tokens = beams.best()
    self.stats.tokens = len(tokens)
    return tokens

  def _begin(self, inputs_BxS: np.ndarray, n_tokens: int, config: DecodeConfig) -> tuple[steps.Progress, int]:
    """The state behind the sources, and for how many tokens its cache has room."""
    grows = steps.can_grow(self._model, inputs_BxS.shape[1] + n_tokens)
    room = min(_FIRST_ROOM, n_tokens) if grows else n_tokens
    cache = steps.prefill(self._model, self._weights, inputs_BxS, room, config.bfloat16_cache)
    written = None
    if config.no_repeat_ngram:
      written = Written(jnp.zeros((len(inputs_BxS), n_tokens), jnp.int32), jnp.int32(0))
    return steps.begin(cache, written), room

  def _with_room(self, progress: steps.Progress, room: int, index: int, n_tokens: int) -> tuple[steps.Progress, int]:
    """The state with room for token number `index`."""
    if index < room:
      return progress, room
    more = min(room, n_tokens - room)
    return dataclasses.replace(progress, cache=steps.grow(progress.cache, more)), room + more

  def _arrived(self, array: jax.Array) -> np.ndarray:
    """The array as soon as it is there, and the time of that."""
    array = np.asarray(array)
    self.stats.steps += 1
    self.stats.seconds = time.perf_counter() - self._begun
    if self.stats.steps == 1:
      self.stats.first_token_seconds = self.stats.seconds
    return array

  def _read(self, texts: Sequence[str], config: DecodeConfig) -> tuple[np.ndarray, int]:
    """The sources' tokens, right-padded, and how many tokens are to be generated at most; begins the statistics."""
    self._begun = time.perf_counter()
    self.stats = Stats()
    rows = []
    for text in texts:
      require_text(text)
      ids = self.bundle.vocabulary.encode(text)
      rows.append([*ids[: self.bundle.inputs_length - 1], EOS_ID])
      self.stats.input_tokens += len(rows[-1])
      self.stats.dropped_tokens += len(ids) + 1 - len(rows[-1])
    longest = max(map(len, rows))
    inputs_BxS = np.zeros((len(rows), _bucket(longest, self.bundle.inputs_length)), np.int32)
    for row, ids in zip(inputs_BxS, rows, strict=True):
      row[: len(ids)] = ids
    wanted = self.bundle.targets_length if config.max_tokens is None else config.max_tokens
    self.stats.room = self._model.room_behind(longest)
    return inputs_BxS, min(wanted, self.stats.room)


def _bucket(length: int, most: int) -> int:
  """A length that few compiled programs serve: the next power of two from 16 on, at most `most`."""
  return min(max(16, 1 << (length - 1).bit_length()), most)
