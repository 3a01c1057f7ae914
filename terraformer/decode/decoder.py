"""Text from a bundle, a token at a time.

B batch, S source time, W beams.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from terraformer.config import DecodeConfig
from terraformer.data.downloads import local_copy
from terraformer.data.tokenizer import EOS_ID
from terraformer.decode import step as steps
from terraformer.decode.beam import Beams
from terraformer.decode.bundle import FILE_PATTERNS, Bundle, open_bundle
from terraformer.decode.engine import open_engine
from terraformer.decode.logits_processors import OF_ALL_MODES, GeneratedTokens, processors_for
from terraformer.decode.prompts import Prompts, make_prompts
from terraformer.decode.sampling import SamplingParams
from terraformer.decode.source import require_text
from terraformer.decode.stops import until_stop
from terraformer.decode.xla import decoding_form
from terraformer.models.loop import decode_loop, one_by_one

_Tokens = jax.Array | np.ndarray
# The tokens of all texts or beams and the state behind those before them -> the next ones, and the state behind these.
_Advance = Callable[[_Tokens, steps.SamplingState], tuple[_Tokens, steps.SamplingState]]

_GREEDY = DecodeConfig()
# Tokens that a cache has room for at first; then it doubles, so that a step never reads much more than is filled.
_FIRST_ROOM = 64
# What the statistics of texts that are decoded one after another have in sum.
_ADDED_UP = ('input_tokens', 'dropped_tokens', 'tokens', 'seconds', 'steps')


@dataclasses.dataclass
class Stats:
  """What one generation took.

  Attributes:
    input_tokens: of the prompt that were read; of a batch, of all prompts.
    dropped_tokens: of the prompt that were not read, since the model was not trained on so many.
    room: tokens that may be written, which is fewer than `DecodeConfig.max_tokens` where the model's positions end.
    tokens: generated, the end of sequence included; of a batch, those of all texts.
    first_token_seconds: from the call to the first token, compilation included.
    seconds: from the call to the last token.
    steps: of the decoder.
    engine: what computed the steps, in words, and why it was not the other one.
  """

  input_tokens: int = 0
  dropped_tokens: int = 0
  room: int = 0
  tokens: int = 0
  first_token_seconds: float = 0.0
  seconds: float = 0.0
  steps: int = 0
  engine: str = ''

  @property
  def milliseconds_per_token(self) -> float:
    """Of the steps after the first one; a batch writes a token of each text in a step."""
    return 1000 * (self.seconds - self.first_token_seconds) / max(self.steps - 1, 1)


class Decoder:
  """A model that is ready to write.

  Attributes:
    bundle: what it was opened from.
    stats: of the last generation.
    text_stats: of each text of it, whose times and steps are those of the whole batch.
  """

  def __init__(self, bundle: Bundle, engine: str = 'auto', n_threads: int | None = None):
    """Makes an open bundle ready to decode; arguments as in `open`."""
    self.bundle = bundle
    self.stats = Stats()
    self.text_stats = [self.stats]
    self._begun = 0.0
    model = decoding_form(bundle.model, bundle.inputs_length + bundle.targets_length)
    self._engine = open_engine(engine, model, bundle.weights, n_threads, bundle.dtype)

  @classmethod
  def open(
    cls, path: str | Path, verify: bool | None = None, engine: str = 'auto', n_threads: int | None = None
  ) -> 'Decoder':
    """Opens a bundle.

    Args:
      path: its folder, the name of one that ships, or an address, `gs://` or `hf://`, which is downloaded once.
      verify: as in `open_bundle`.
      engine: what computes: `native`, `xla`, or `auto` for the native engine where it runs the model.
      n_threads: of the native engine; None for one per core.

    Raises:
      UserError: as `open_bundle`, or if the engine that was asked for cannot run the model.
    """
    return cls(open_bundle(local_copy(path, FILE_PATTERNS), verify), engine, n_threads)

  def generate(self, text: str, config: DecodeConfig = _GREEDY) -> Iterator[str]:
    """Pieces of text as they come; together they are the whole text. Beam search gives it in one piece.

    Args:
      text: the prompt. A model that was trained without sources goes on from it, and what comes is the continuation
        alone; any other reads it as its source. Of a source that is longer than the model was trained on the end is not
        read, of a prompt to go on from the beginning (see `stats.dropped_tokens`).
      config: how tokens are chosen, and how many at most.

    Raises:
      UserError: if it is not a text, or an empty source.
    """
    return until_stop(self._pieces(text, self.tokens(text, config)), config.stop)

  def generate_batch(self, texts: Sequence[str], config: DecodeConfig = _GREEDY) -> list[str]:
    """Whole texts, one for each prompt, decoded side by side; the same that each would become alone.

    Raises:
      UserError: if one is not a text, or an empty source.
    """
    if not texts:
      return []
    if config.beams > 1:
      return self._one_by_one(texts, config)
    rows: list[list[int]] = [[] for _ in texts]
    for token_B in self._token_rows(texts, config):
      for row, stats, token in zip(rows, self.text_stats, token_B.tolist(), strict=True):
        if not _has_ended(row, stats.room):
          row.append(token)
          stats.tokens += 1
      if all(_has_ended(row, stats.room) for row, stats in zip(rows, self.text_stats, strict=True)):
        break
    self.stats.tokens = sum(map(len, rows))
    for stats in self.text_stats:
      stats.first_token_seconds, stats.seconds = self.stats.first_token_seconds, self.stats.seconds
      stats.steps = self.stats.steps
    return [''.join(until_stop(self._pieces(text, row), config.stop)) for text, row in zip(texts, rows, strict=True)]

  def tokens(self, text: str, config: DecodeConfig = _GREEDY) -> Iterator[int]:
    """Generated tokens one by one, up to the end of sequence, which is not among them.

    Raises:
      UserError: if it is not a text, or an empty source.
    """
    if config.beams > 1:
      yield from self._search(text, config)
      return
    for token_B in self._token_rows([text], config):
      self.stats.tokens += 1
      if token_B[0] == EOS_ID:
        return
      yield int(token_B[0])

  def teacher_forced_logits(
    self, inputs_BxS: np.ndarray, targets_BxT: np.ndarray, cache_dtype: str = 'float32'
  ) -> np.ndarray:
    """Logits BxTxV of each target token given the targets before it, step by step as texts are decoded.

    Args:
      inputs_BxS: sources, right-padded with 0; of a model without sources of length 0.
      targets_BxT: targets, right-padded with 0.
      cache_dtype: of the KV cache.
    """
    batch, n_steps = targets_BxT.shape
    start_B, length_B = np.zeros(batch, np.int32), (inputs_BxS != 0).sum(1).astype(np.int32)
    prompts = Prompts(self.bundle.continues, inputs_BxS, length_B, start_B, [], [], [n_steps] * batch)
    state = self._engine.prefill(prompts, n_steps, cache_dtype)
    arguments, logits = self._engine.arguments(cache_dtype), []
    step = steps.compile_forward(self._engine.forward)
    for token_B in np.column_stack([start_B, targets_BxT[:, :-1]]).T:
      logits_BxV, state = step(arguments, jnp.asarray(token_B, jnp.int32), state)
      logits.append(np.asarray(logits_BxV))
    return np.stack(logits, axis=1)

  def _one_by_one(self, texts: Sequence[str], config: DecodeConfig) -> list[str]:
    """Beam search of each text; its beams are a batch already."""
    written, text_stats = [], []
    for text in texts:
      written.append(''.join(self.generate(text, config)))
      text_stats.append(self.stats)
    totals = {name: sum(getattr(one, name) for one in text_stats) for name in _ADDED_UP}
    self.stats = dataclasses.replace(text_stats[0], room=max(one.room for one in text_stats), **totals)
    self.text_stats = text_stats
    return written

  def _pieces(self, text: str, tokens: Iterable[int]) -> Iterator[str]:
    """The tokens that follow a prompt as pieces of text."""
    stream = self.bundle.tokenizer.stream(begins=not (self.bundle.continues and text))
    for token in tokens:
      if piece := stream.feed(token):
        yield piece
    if rest := stream.finish():
      yield rest

  def _token_rows(self, texts: Sequence[str], config: DecodeConfig) -> Iterator[np.ndarray]:
    """The next token of every text, token_B, again and again; also of texts that have ended."""
    prompts = self._read(texts, config)
    step = steps.compile_step(self._engine.forward, self.bundle.tokenizer.size)
    params, arguments = SamplingParams.from_config(config), self._engine.arguments(config.cache_dtype)

    def advance(token_B, sampling):
      return step(arguments, sampling, token_B, params)

    tokens = self._steps(advance, prompts, config)
    # A token is looked at when the step behind it is under way: the machine need not wait for Python.
    for token_B, _ in itertools.pairwise(itertools.chain(tokens, [0])):
      yield self._fetched(token_B)

  def _search(self, text: str, config: DecodeConfig) -> tuple[int, ...]:
    """The tokens of beam search."""
    prompts = self._read([text], config)
    step = steps.compile_beam_step(self._engine.forward, self.bundle.tokenizer.size)
    processors, arguments = processors_for(config, OF_ALL_MODES), self._engine.arguments(config.cache_dtype)
    beams = Beams(config.beams, config.length_penalty, EOS_ID)

    def advance(token_W, sampling):
      score_W = np.array([hypothesis.score for hypothesis in beams.live], np.float32)
      best, sampling = step(arguments, sampling, token_W, score_W, processors)
      parents = beams.advance(*(np.asarray(each).tolist() for each in best))
      self._fetched(best[0])
      if beams.is_done:
        return token_W, sampling
      if parents != list(range(config.beams)):
        sampling = steps.reorder_beams(sampling, jnp.array(parents))
      token_W = np.array([hypothesis.tokens[-1] for hypothesis in beams.live], np.int32)
      return token_W, sampling.appended(token_W)

    for _ in self._steps(advance, prompts, config, lambda: not beams.is_done):
      pass  # all that counts is in the beams
    tokens = beams.best()
    self.stats.tokens = len(tokens)
    return tokens

  def _steps(
    self, advance: _Advance, prompts: Prompts, config: DecodeConfig, unfinished: Callable[[], bool] = lambda: True
  ) -> Iterator[jax.Array]:
    """The tokens of all texts, or of all beams of one, that `advance` puts behind the prompts and each other."""
    if not prompts.n_new:
      return

    def step(index, carry):
      token_B, sampling, room = carry
      sampling, room = self._with_slot(sampling, room, index, prompts.n_new)
      return *advance(token_B, sampling), room

    carry = jnp.asarray(np.repeat(prompts.last_B, config.beams)), *self._init_sampling(prompts, config)
    for _, (token_B, _, _) in decode_loop(step, carry, prompts.n_new, lambda _: unfinished(), one_by_one):
      yield token_B

  def _init_sampling(self, prompts: Prompts, config: DecodeConfig) -> tuple[steps.SamplingState, int]:
    """The state behind the prompts, that of every beam, and for how many tokens its cache has room."""
    batch, length = prompts.tokens_BxS.shape
    grows = self._engine.can_grow(length + prompts.n_new)
    room = min(_FIRST_ROOM, prompts.n_new) if grows else prompts.n_new
    state = self._engine.prefill(prompts, room, config.cache_dtype)
    generated = GeneratedTokens.empty(batch, prompts.n_new) if config.no_repeat_ngram else None
    sampling = steps.SamplingState(state, jnp.int32(0), generated)
    return steps.repeat_state(sampling, config.beams) if config.beams > 1 else sampling, room

  def _with_slot(
    self, sampling: steps.SamplingState, room: int, index: int, n_tokens: int
  ) -> tuple[steps.SamplingState, int]:
    """The state with room for token number `index`."""
    if index < room:
      return sampling, room
    more = min(room, n_tokens - room)
    return dataclasses.replace(sampling, state=self._engine.extend(sampling.state, more)), room + more

  def _fetched(self, array: ArrayLike) -> np.ndarray:
    """The array as soon as it is there, and the time of that."""
    fetched = np.asarray(array)
    self.stats.steps += 1
    self.stats.seconds = time.perf_counter() - self._begun
    if self.stats.steps == 1:
      self.stats.first_token_seconds = self.stats.seconds
    return fetched

  def _read(self, texts: Sequence[str], config: DecodeConfig) -> Prompts:
    """The prompts of the texts; begins the statistics."""
    self._begun = time.perf_counter()
    for text in texts:
      require_text(text, may_be_empty=self.bundle.continues)
    prompts = make_prompts(self.bundle, texts, config)
    each = zip(prompts.read, prompts.dropped, prompts.limits, strict=True)
    self.text_stats = [Stats(*counts, engine=self._engine.about) for counts in each]
    totals = Stats(sum(prompts.read), sum(prompts.dropped), prompts.n_new, engine=self._engine.about)
    self.stats = totals if len(texts) > 1 else self.text_stats[0]
    return prompts


def _has_ended(row: list[int], room: int) -> bool:
  """Whether a text of these tokens takes no more."""
  return len(row) >= room or row[-1:] == [EOS_ID]
