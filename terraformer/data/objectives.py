"""From a record to an example of fixed lengths: pairs are cut and closed, windows of running text become an objective.

S inputs' length, T targets' length.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from terraformer.config import DataConfig, LMConfig, PrefixLMConfig, SpanCorruptionConfig
from terraformer.data.span_corruption import corrupt
from terraformer.data.vocabulary import EOS_ID, PAD_ID

Arranged = tuple[np.ndarray, np.ndarray]
Arrange = Callable[[dict[str, Any], np.random.Generator], Arranged]


def make_arrange(config: DataConfig, is_text: bool, sentinel_ids: Sequence[int]) -> Arrange:
  """The function that makes inputs int32[S] and targets int32[T] of a record; zeros fill up on the right.

  Each feature of a pair is cut to one token less than its length and closed by an end of sequence. Of text:

  - prefix language modelling splits a window at a random point; up to S - 1 tokens before it, closed by an end of
    sequence, are the inputs, and the T tokens after it the targets, in which only a document's own end is an end;
  - language modelling takes the window as targets, in which the same holds;
  - span corruption, whose sentinels have these ids, closes both features by an end of sequence.
  """
  inputs_length, targets_length = config.inputs_length, config.targets_length
  objective, sentinels_N = config.text_objective, np.asarray(sentinel_ids, np.int32)

  def pair(record, rng):
    return closed(record['inputs'], inputs_length), closed(record['targets'], targets_length)

  def prefix(record, rng):
    window = record['targets']
    split = int(rng.integers(1, max(2, len(window) - targets_length + 1)))
    inputs = closed(window[max(0, split - inputs_length + 1) : split], inputs_length)
    return inputs, padded(window[split : split + targets_length], targets_length)

  def alone(record, rng):
    return np.zeros(0, np.int32), padded(record['targets'], targets_length)

  def spans(record, rng):
    inputs, targets = corrupt(record['targets'], sentinels_N, objective, rng)
    return closed(inputs, inputs_length), closed(targets, targets_length)

  return {PrefixLMConfig: prefix, LMConfig: alone, SpanCorruptionConfig: spans}[type(objective)] if is_text else pair


def target_counts(config: DataConfig, counts_V: np.ndarray, n_windows: int, sentinel_ids: Sequence[int]) -> np.ndarray:
  """How often each id is a target, int64[V], where running text has these counts in so many windows."""
  objective = config.text_objective
  if not isinstance(objective, SpanCorruptionConfig):
    return counts_V
  n_spans = objective.noise(objective.window_length(config.inputs_length, config.targets_length))[1]
  counts_V = np.rint(objective.noise_density * counts_V).astype(np.int64)
  counts_V[list(sentinel_ids[:n_spans])] += n_windows
  counts_V[EOS_ID] += n_windows
  return counts_V


def ended(ids: np.ndarray, length: int) -> np.ndarray:
  """The ids, cut to one less than `length`, with an end of sequence after them."""
  return np.append(ids[: length - 1], EOS_ID)


def closed(ids: np.ndarray, length: int) -> np.ndarray:
  """The same, filled up."""
  return padded(ended(ids, length), length)


def padded(ids: np.ndarray, length: int) -> np.ndarray:
  filled = np.full(length, PAD_ID, np.int32)
  filled[: len(ids)] = ids
  return filled
