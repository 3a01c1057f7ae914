"""What a model reads before it writes: sources, or the beginnings of texts that a language model goes on from.

B batch, S prompt time.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from terraformer.config import DecodeConfig
from terraformer.data.tokenizer import EOS_ID, PAD_ID
from terraformer.decode.bundle import Bundle
from terraformer.models.base import DecodeState, Model

_START_ID = PAD_ID  # the token before the first target


@dataclasses.dataclass(frozen=True)
class Prompts:
  """The prompts of a batch.

  Attributes:
    continues: whether they are beginnings of texts; else they are sources.
    tokens_BxS: int32, what is read at once, right-padded with 0.
    length_B: int32, how many of them are real.
    last_B: int32, what the first step reads.
    read: tokens of each text that the model reads.
    dropped: tokens of each text that it does not read.
    limits: tokens that may be written for each text.
  """

  continues: bool
  tokens_BxS: np.ndarray
  length_B: np.ndarray
  last_B: np.ndarray
  read: list[int]
  dropped: list[int]
  limits: list[int]

  @property
  def n_new(self) -> int:
    """Steps that the longest text may take."""
    return max(self.limits)

  def prefill(self, model: Model, room: int) -> DecodeState:
    """Reads them with a model and makes room for `room` steps."""
    if self.continues:
      return model.prefill_beginning(self.tokens_BxS, self.length_B, room)
    return model.prefill(self.tokens_BxS, room)


def make_prompts(bundle: Bundle, texts: Sequence[str], config: DecodeConfig) -> Prompts:
  """The prompts of at least one text, each what it would be alone.

  A source is cut at its end, and gets an end of sequence if the model was trained with one. A language model that was
  trained without sources goes on from its prompt, which gets none; of one that is too long the last tokens are kept.
  """
  ids = [bundle.tokenizer.encode(text) for text in texts]
  return _beginnings(bundle, ids, config) if bundle.continues else _sources(bundle, ids, config)


def _sources(bundle: Bundle, ids: list[list[int]], config: DecodeConfig) -> Prompts:
  end = [EOS_ID] if bundle.inputs_eos else []
  rows = [[*row[: bundle.inputs_length - 1], *end] for row in ids]
  wanted = bundle.targets_length if config.max_tokens is None else config.max_tokens
  return Prompts(
    False,
    *_padded(rows, bundle.inputs_length),
    last_B=np.full(len(rows), _START_ID, np.int32),
    read=[len(row) for row in rows],
    dropped=[len(all_ids) + len(end) - len(row) for all_ids, row in zip(ids, rows, strict=True)],
    limits=[min(wanted, bundle.model.room_behind(len(row))) for row in rows],
  )


def _beginnings(bundle: Bundle, ids: list[list[int]], config: DecodeConfig) -> Prompts:
  """A prompt and its continuation share the length that the model was trained on.

  A long prompt makes way for `max_tokens`, down to half of that length; by default what is written fills the rest of
  it. With `max_tokens` a text may be as long as the model has positions.
  """
  trained, wanted = bundle.targets_length, config.max_tokens
  most = max(trained - (trained if wanted is None else wanted), trained // 2)
  kept = [row[max(0, len(row) - most) :] for row in ids]
  # The last token is the first that a step reads, behind all others; the start token is before the first.
  rows = [[_START_ID, *row[:-1]] if row else [] for row in kept]
  return Prompts(
    True,
    *_padded(rows, trained),
    last_B=np.array([row[-1] if row else _START_ID for row in kept], np.int32),
    read=[len(row) for row in kept],
    dropped=[len(all_ids) - len(row) for all_ids, row in zip(ids, kept, strict=True)],
    limits=[trained - len(row) if wanted is None else min(wanted, bundle.model.room_behind(len(row))) for row in kept],
  )


def _padded(rows: list[list[int]], most: int) -> tuple[np.ndarray, np.ndarray]:
  """tokens_BxS of a length that few compiled programs serve (the next power of two from 16 on, at most `most`), and
  length_B."""
  longest = max(map(len, rows))
  n_slots = min(max(16, 1 << (longest - 1).bit_length()), most) if longest else 0
  tokens_BxS = np.full((len(rows), n_slots), PAD_ID, np.int32)
  for row, ids in zip(tokens_BxS, rows, strict=True):
    row[: len(ids)] = ids
  return tokens_BxS, np.array([len(row) for row in rows], np.int32)
