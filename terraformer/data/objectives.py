"""Turns records into examples of fixed lengths: cuts pairs, and applies an objective to windows of running text.

S inputs' length, T targets' length.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from terraformer.config import DataConfig, LMConfig, PrefixLMConfig, SpanCorruptionConfig
from terraformer.data.span_corruption import corrupt
from terraformer.data.tokenizer import EOS_ID, PAD_ID

Arranged = tuple[np.ndarray, np.ndarray]
Arrange = Callable[[dict[str, Any], np.random.Generator], Arranged]


def make_arrange(config: DataConfig, is_text: bool, sentinel_ids: Sequence[int]) -> Arrange:
  """Returns a function that turns a record into inputs int32[S] and targets int32[T], padded with zeros on the right.

  Each feature of a pair is cut to one token less than its length and gets an end of sequence, the inputs only if
  `config.inputs_eos`. For text:

  - prefix language modeling splits a window at a random point. Up to S - 1 tokens before it and an end of sequence are
    the inputs. The T tokens after it are the targets, which contain an end of sequence only where a document ends;
  - language modeling takes the window as targets, with the same rule for ends of sequence;
  - span corruption uses the sentinels with these ids and adds an end of sequence to both features.
  """
  inputs_length, targets_length = config.inputs_length, config.targets_length
  objective, sentinels_N = config.text_objective, np.asarray(sentinel_ids, np.int32)
  end_inputs = end_and_pad if config.inputs_eos else cut_and_pad

  def pair(record, rng):
    return end_inputs(record['inputs'], inputs_length), end_and_pad(record['targets'], targets_length)

  def prefix(record, rng):
    window = record['targets']
    split = int(rng.integers(1, max(2, len(window) - targets_length + 1)))
    inputs = end_inputs(window[max(0, split - inputs_length + 1) : split], inputs_length)
    return inputs, pad(window[split : split + targets_length], targets_length)

  def alone(record, rng):
    return np.zeros(0, np.int32), pad(record['targets'], targets_length)

  def spans(record, rng):
    inputs, targets = corrupt(record['targets'], sentinels_N, objective, rng)
    return end_inputs(inputs, inputs_length), end_and_pad(targets, targets_length)

  return {PrefixLMConfig: prefix, LMConfig: alone, SpanCorruptionConfig: spans}[type(objective)] if is_text else pair


def target_counts(config: DataConfig, counts_V: np.ndarray, n_windows: int, sentinel_ids: Sequence[int]) -> np.ndarray:
  """Returns how often each id is a target, int64[V], given its counts in `n_windows` windows of running text."""
  objective = config.text_objective
  if not isinstance(objective, SpanCorruptionConfig):
    return counts_V
  n_spans = objective.noise(objective.window_length(config.inputs_length, config.targets_length))[1]
  counts_V = np.rint(objective.noise_density * counts_V).astype(np.int64)
  counts_V[list(sentinel_ids[:n_spans])] += n_windows
  counts_V[EOS_ID] += n_windows
  return counts_V


def append_eos(ids: np.ndarray, length: int) -> np.ndarray:
  """Returns the ids, cut to one less than `length`, followed by an end of sequence."""
  return np.append(ids[: length - 1], EOS_ID)


def end_and_pad(ids: np.ndarray, length: int) -> np.ndarray:
  """Returns the same as `append_eos`, padded to `length`."""
  return pad(append_eos(ids, length), length)


def cut_and_pad(ids: np.ndarray, length: int) -> np.ndarray:
  """Returns the ids, cut to one less than `length`, padded to `length`."""
  return pad(ids[: length - 1], length)


def pad(ids: np.ndarray, length: int) -> np.ndarray:
  filled = np.full(length, PAD_ID, np.int32)
  filled[: len(ids)] = ids
  return filled
