"""Generates text with a bundle, one token at a time.

B batch, S source time, W beams.
"""

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

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
from terraformer.decode.logits_processors import OF_ALL_MODES, processors_for
from terraformer.decode.prompts import Prompts, make_prompts
from terraformer.decode.source import require_text
from terraformer.decode.stepping import all_steps, next_tokens
from terraformer.decode.stops import until_stop
from terraformer.decode.xla import decoding_form

_GREEDY = DecodeConfig()
# These statistics are added up over texts that are decoded one after another.
_ADDED_UP = ('input_tokens', 'dropped_tokens', 'tokens', 'seconds', 'steps')


@dataclasses.dataclass
class Stats:
  """Statistics of one generation. For a batch, the token counts are totals.

  Attributes:
    input_tokens: number of prompt tokens that were read.
    dropped_tokens: number of prompt tokens that were not read, because the prompt is longer than those in training.
    room: maximum number of new tokens; less than `DecodeConfig.max_tokens` if the model has too few positions.
    tokens: number of generated tokens, including the end of sequence.
    first_token_seconds: time from the call to the first token, including compilation.
    seconds: time from the call to the last token.
    steps: number of decoder steps.
    engine: description of the engine that computed the steps, and why the native one was not used.
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
    """Mean time of the steps after the first; one step generates a token for each text of a batch."""
    return 1000 * (self.seconds - self.first_token_seconds) / max(self.steps - 1, 1)


class Decoder:
  """Generates text with the model of a bundle.

  Attributes:
    bundle: the open bundle.
    engine: computes the steps.
    stats: statistics of the last generation.
    text_stats: statistics of each text of the last generation; times and steps are those of the whole batch.
  """

  def __init__(self, bundle: Bundle, engine: str = 'auto', n_threads: int | None = None):
    """Prepares an open bundle for decoding; see `open` for the arguments."""
    self.bundle = bundle
    self.stats = Stats()
    self.text_stats = [self.stats]
    self._begun = 0.0
    model = decoding_form(bundle.model, bundle.inputs_length, bundle.targets_length)
    self.engine = open_engine(engine, model, bundle.weights, n_threads, bundle.dtype)

  @classmethod
  def open(
    cls, path: str | Path, verify: bool | None = None, engine: str = 'auto', n_threads: int | None = None
  ) -> 'Decoder':
    """Opens a bundle and returns its decoder.

    Args:
      path: the bundle's folder, the name of a bundle that comes with the package, or an address (`gs://`, `hf://`) that
        is downloaded once.
      verify: whether to verify the checksums; see `open_bundle`.
      engine: `native`, `xla`, or `auto` for the native engine if it can run the model, otherwise XLA.
      n_threads: number of threads of the native engine; None for one per core.

    Raises:
      UserError: if `open_bundle` raises it, or if the requested engine cannot run the model.
    """
    return cls(open_bundle(local_copy(path, FILE_PATTERNS, needed=('config.json',)), verify), engine, n_threads)

  def generate(self, text: str, config: DecodeConfig = _GREEDY) -> Iterator[str]:
    """Yields pieces of text as they are generated; joined, they are the whole text. Beam search yields one piece.

    Args:
      text: the prompt. A model that was trained with sources reads it as its source. A language model continues it, and
        only the continuation is yielded. If the prompt is longer than those in training, the end of a source, or the
        beginning of a prompt to continue, is not read (see `stats.dropped_tokens`).
      config: how tokens are chosen, and the maximum number of them.

    Raises:
      UserError: if `text` is not valid text, or is an empty source.
    """
    return until_stop(self._pieces(text, self.tokens(text, config)), config.stop)

  def generate_batch(self, texts: Sequence[str], config: DecodeConfig = _GREEDY) -> list[str]:
    """Returns one text for each prompt, decoded together; each is the same text that `generate` yields for its prompt.

    Raises:
      UserError: if a prompt is not valid text, or is an empty source.
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
    """Yields the generated tokens one by one, without the end of sequence.

    Raises:
      UserError: if `text` is not valid text, or is an empty source.
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
    """Returns the logits of each target token given the targets before it, BxTxV, computed step by step as in decoding.

    Args:
      inputs_BxS: sources, right-padded with 0; S is 0 for a model without sources.
      targets_BxT: targets, right-padded with 0.
      cache_dtype: type of the KV cache.
    """
    batch, n_steps = targets_BxT.shape
    start_B, length_B = np.zeros(batch, np.int32), (inputs_BxS != 0).sum(1).astype(np.int32)
    prompts = Prompts(self.bundle.continues, inputs_BxS, length_B, start_B, [], [], [n_steps] * batch)
    state = self.engine.prefill(prompts, n_steps, cache_dtype)
    arguments, logits = self.engine.arguments, []
    step = steps.compile_forward(self.engine.forward)
    for token_B in np.column_stack([start_B, targets_BxT[:, :-1]]).T:
      logits_BxV, state = step(arguments, jnp.asarray(token_B, jnp.int32), state)
      logits.append(np.asarray(logits_BxV))
    return np.stack(logits, axis=1)

  def _one_by_one(self, texts: Sequence[str], config: DecodeConfig) -> list[str]:
    """Runs beam search for one prompt after another, since the beams of one are already a batch; returns the texts."""
    written, text_stats = [], []
    for text in texts:
      written.append(''.join(self.generate(text, config)))
      text_stats.append(self.stats)
    totals = {name: sum(getattr(one, name) for one in text_stats) for name in _ADDED_UP}
    self.stats = dataclasses.replace(text_stats[0], room=max(one.room for one in text_stats), **totals)
    self.text_stats = text_stats
    return written

  def _pieces(self, text: str, tokens: Iterable[int]) -> Iterator[str]:
    """Yields the tokens that follow a prompt as pieces of text."""
    stream = self.bundle.tokenizer.stream(begins=not (self.bundle.continues and text))
    for token in tokens:
      if piece := stream.feed(token):
        yield piece
    if rest := stream.finish():
      yield rest

  def _token_rows(self, texts: Sequence[str], config: DecodeConfig) -> Iterator[np.ndarray]:
    """Yields token_B for each step: the next token of every text, even of texts that have ended."""
    prompts = self._read(texts, config)
    tokens = next_tokens(self.engine, self.bundle.tokenizer.size, prompts, config)
    # Fetches each token only after the next step has started, so that the machine does not wait for Python.
    for token_B, _ in itertools.pairwise(itertools.chain(tokens, [0])):
      yield self._fetched(token_B)

  def _search(self, text: str, config: DecodeConfig) -> tuple[int, ...]:
    """Returns the tokens that beam search finds."""
    prompts = self._read([text], config)
    step = steps.compile_beam_step(self.engine.forward, self.bundle.tokenizer.size)
    processors, arguments = processors_for(config, OF_ALL_MODES), self.engine.arguments
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

    for _ in all_steps(self.engine, advance, prompts, config, lambda: not beams.is_done):
      pass  # the beams hold the results
    tokens = beams.best()
    self.stats.tokens = len(tokens)
    return tokens

  def _fetched(self, array: ArrayLike) -> np.ndarray:
    """Waits for the array and returns it; counts a step and records the time."""
    fetched = np.asarray(array)
    self.stats.steps += 1
    self.stats.seconds = time.perf_counter() - self._begun
    if self.stats.steps == 1:
      self.stats.first_token_seconds = self.stats.seconds
    return fetched

  def _read(self, texts: Sequence[str], config: DecodeConfig) -> Prompts:
    """Returns the prompts of the texts, and resets the statistics."""
    self._begun = time.perf_counter()
    for text in texts:
      require_text(text, may_be_empty=self.bundle.continues)
    prompts = make_prompts(self.bundle, texts, config)
    each = zip(prompts.read, prompts.dropped, prompts.limits, strict=True)
    self.text_stats = [Stats(*counts, engine=self.engine.about) for counts in each]
    totals = Stats(sum(prompts.read), sum(prompts.dropped), prompts.n_new, engine=self.engine.about)
    self.stats = totals if len(texts) > 1 else self.text_stats[0]
    return prompts


def _has_ended(row: list[int], room: int) -> bool:
  """Returns whether a text with these tokens is complete."""
  return len(row) >= room or row[-1:] == [EOS_ID]
