"""Prompts: sources to read, or beginnings of texts that a language model continues.

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
    continues: whether the prompts are beginnings of texts; otherwise they are sources.
    tokens_BxS: int32, the tokens that prefill reads, right-padded with 0.
    length_B: int32, the number of real tokens in each row.
    last_B: int32, the tokens that the first step reads.
    read: for each text, the number of tokens that the model reads.
    dropped: for each text, the number of tokens that the model does not read.
    limits: for each text, the maximum number of new tokens.
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
    """Maximum number of new tokens over all texts."""
    return max(self.limits)

  def prefill(self, model: Model, room: int) -> DecodeState:
    """Returns a model's state after the prompts, with cache slots for `room` new tokens."""
    if self.continues:
      return model.prefill_beginning(self.tokens_BxS, self.length_B, room)
    return model.prefill(self.tokens_BxS, room)


def make_prompts(bundle: Bundle, texts: Sequence[str], config: DecodeConfig) -> Prompts:
  """Returns the prompts of one or more texts; the result for each text does not depend on the others.

  A source that is too long loses its end, and gets an end of sequence if the model was trained with one. A language
  model that was trained without sources continues its prompt, which gets no end of sequence; a prompt that is too long
  loses its beginning.
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
  """Returns the prompts of a language model; prompt and continuation share the length that it was trained on.

  A long prompt is cut to leave room for `max_tokens`, but keeps at least half of that length. By default the
  continuation fills the rest. With `max_tokens`, a text may fill all positions of the model.
  """
  trained, wanted = bundle.targets_length, config.max_tokens
  most = max(trained - (trained if wanted is None else wanted), trained // 2)
  kept = [row[max(0, len(row) - most) :] for row in ids]
  # Prefill reads the start token and all tokens but the last, which the first step reads.
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
  """Returns tokens_BxS and length_B. S is a power of two from 16, or `most`, so that few programs are compiled."""
  longest = max(map(len, rows))
  n_slots = min(max(16, 1 << (longest - 1).bit_length()), most) if longest else 0
  tokens_BxS = np.full((len(rows), n_slots), PAD_ID, np.int32)
  for row, ids in zip(tokens_BxS, rows, strict=True):
    row[: len(ids)] = ids
  return tokens_BxS, np.array([len(row) for row in rows], np.int32)
