"""Removes near duplicates from a list of texts with banded MinHash over word shingles, in numpy."""

import array
import re
import zlib
from collections.abc import Sequence

import numpy as np

SHINGLE = 3  # words
BANDS, ROWS = 8, 4  # shape of a signature; texts that share a whole band are compared
SIMILAR = 0.7  # drop a text with at least this share of equal signature entries (it estimates Jaccard similarity)

_WORD = re.compile(r'\w+')
_SEED = 20211124


def keep_first(texts: Sequence[str]) -> np.ndarray:
  """Returns which texts to keep, bool[len(texts)]: those that are not near copies of an earlier text.

  Case, white space and punctuation are ignored. The result depends only on the texts and their order.
  """
  if not texts:
    return np.zeros(0, bool)
  signatures = _signatures(texts)
  left = np.arange(len(texts))
  while True:
    kept = _keep_first(signatures[left])
    if kept.all():
      break
    left = left[kept]
  marks = np.zeros(len(texts), bool)
  marks[left] = True
  return marks


def _keep_first(signatures: np.ndarray) -> np.ndarray:
  """Runs one round: compares each text with the earliest text that shares a band with it."""
  kept = np.ones(len(signatures), bool)
  for band in np.split(signatures, BANDS, axis=1):
    _, first, group = np.unique(_mix(band), return_index=True, return_inverse=True)
    earliest = first[group]
    similar = (signatures == signatures[earliest]).mean(axis=1) >= SIMILAR
    kept &= ~(similar & (earliest < np.arange(len(signatures))))
  return kept


def _signatures(texts: Sequence[str]) -> np.ndarray:
  """Returns MinHash signatures, uint64[len(texts), BANDS * ROWS]."""
  hashes = _WordHashes()
  words, lengths = array.array('L'), []
  for text in texts:
    found = _WORD.findall(text.lower()) or ['']
    found = [''] * (SHINGLE - len(found)) + found
    lengths.append(len(found))
    words.extend(map(hashes.__getitem__, found))
  words = np.array(words, np.uint64)
  starts = np.cumsum([0] + lengths[:-1])
  # Shingles are hashed over the whole concatenation; those that cross a boundary between texts are removed below.
  shingles = _mix(np.stack([words[i : len(words) - SHINGLE + 1 + i] for i in range(SHINGLE)], axis=1))
  inside = np.ones(len(words), bool)
  ends = np.append(starts[1:], len(words))
  for i in range(1, SHINGLE):
    inside[ends - i] = False
  shingles = shingles[inside[: len(shingles)]]
  starts = starts - np.arange(len(starts)) * (SHINGLE - 1)
  rng = np.random.default_rng(_SEED)
  factors, offsets = rng.integers(1, 2**63, (2, BANDS * ROWS), np.uint64)
  columns = [np.minimum.reduceat(shingles * (a | 1) + b, starts) for a, b in zip(factors, offsets, strict=True)]
  return np.stack(columns, axis=1)


class _WordHashes(dict):
  def __missing__(self, word: str) -> int:
    value = self[word] = zlib.crc32(word.encode('utf-8', 'surrogatepass'))
    return value


def _mix(x_NxK: np.ndarray) -> np.ndarray:
  """Returns one hash per row."""
  mixed = np.zeros(len(x_NxK), np.uint64)
  for column in x_NxK.T:
    mixed = _scramble(mixed * np.uint64(0x9E3779B97F4A7C15) + column)
  return mixed


def _scramble(x: np.ndarray) -> np.ndarray:
  x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
  return x ^ (x >> np.uint64(29))
