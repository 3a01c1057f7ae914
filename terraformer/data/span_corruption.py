"""T5's span corruption (Raffel et al. 2020, section 3.1.4) in numpy: a pure function of a window and a generator.

L window, N sentinels, S spans.
"""

import numpy as np

from terraformer.config import SpanCorruptionConfig


def corrupt(
  tokens_L: np.ndarray, sentinels_N: np.ndarray, config: SpanCorruptionConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Cuts random spans out of a window; returns inputs and targets, int32, without ends of sequence.

  Sentinel i replaces span i (from 0) in the inputs, and precedes the span in the targets, so the two together contain
  the whole window. As in T5, a window starts with a kept token and ends with a span.

  Args:
    tokens_L: at least two tokens, none a sentinel.
    sentinels_N: ids of the sentinels, starting with `<extra_id_0>`; at least one per span.
    config: the share of tokens to cut out, and the length of spans.
    rng: generator that samples the spans.
  """
  n_noise, n_spans = config.noise(len(tokens_L))
  kept_S = _lengths(len(tokens_L) - n_noise, n_spans, rng)
  noise_S = _lengths(n_noise, n_spans, rng)
  sentinels_S = sentinels_N[:n_spans]
  ends_S = np.cumsum(kept_S + noise_S)
  is_noise_L = np.zeros(len(tokens_L) + 1, np.int8)
  is_noise_L[ends_S - noise_S] += 1
  is_noise_L[ends_S] -= 1
  is_noise_L = np.cumsum(is_noise_L[:-1], dtype=np.int8).astype(bool)
  inputs = _insert(tokens_L[~is_noise_L], np.cumsum(kept_S), sentinels_S)
  targets = _insert(tokens_L[is_noise_L], np.cumsum(noise_S) - noise_S, sentinels_S)
  return inputs, targets


def _lengths(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
  """Returns positive lengths that sum to `total`, int64[parts]; every composition is equally likely."""
  cuts = np.zeros(parts + 1, np.int64)
  cuts[1:-1] = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1
  cuts[-1] = total
  return cuts[1:] - cuts[:-1]


def _insert(tokens: np.ndarray, before_S: np.ndarray, sentinels_S: np.ndarray) -> np.ndarray:
  """Returns the tokens with sentinel i inserted before token number `before_S[i]`; `before_S` increases."""
  joined = np.empty(len(tokens) + len(sentinels_S), np.int32)
  at_S = before_S + np.arange(len(sentinels_S))
  is_token = np.ones(len(joined), bool)
  is_token[at_S] = False
  joined[at_S], joined[is_token] = sentinels_S, tokens
  return joined
