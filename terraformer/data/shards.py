"""Writes records into ArrayRecord shards and keeps the counts that the manifest needs."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from terraformer import paths
from terraformer.data.vocabulary import EOS_ID
from terraformer.files import as_os_errors

SHARD_BYTES = 256_000_000

T = TypeVar('T')


class ShardWriter:
  """Writes records into shards, whose names begin alike and tell how many there are once it is closed.

  Attributes:
    examples: records so far.
    tokens: tokens so far, by feature.
    shards: bytes by file name, after `close`.
  """

  def __init__(self, folder: Path, name: str, shard_bytes: int = SHARD_BYTES):
    self._folder, self._name, self._shard_bytes = folder, name, shard_bytes
    self._paths: list[Path] = []
    self._writer, self._written = None, 0
    self.examples, self.tokens, self.shards = 0, {}, {}

  def add(self, record: bytes, tokens: dict[str, np.ndarray]) -> None:
    if self._writer is None:
      self._paths.append(self._folder / f'{self._name}-{len(self._paths):05d}.array_record')
      self._writer, self._written = ArrayRecordWriter(str(paths.plain(self._paths[-1])), 'group_size:1,zstd:1'), 0
    with as_os_errors():
      self._writer.write(record)
    self._written += len(record)
    self.examples += 1
    for name, ids in tokens.items():
      self.tokens[name] = self.tokens.get(name, 0) + len(ids)
    if self._written >= self._shard_bytes:
      self._end_shard()

  def _end_shard(self) -> None:
    if self._writer is not None:
      with as_os_errors():
        self._writer.close()
      self._writer = None

  def close(self) -> None:
    self._end_shard()
    for number, path in enumerate(self._paths):
      final = path.with_name(f'{self._name}-{number:05d}-of-{len(self._paths):05d}.array_record')
      path.rename(final)
      self.shards[final.name] = final.stat().st_size


class Tally:
  """What is counted over all splits: unigrams of each task's training targets, and a fingerprint of every record."""

  def __init__(self, n_tasks: int, vocabulary_size: int, vocabulary_fingerprint: str):
    self.unigram_counts = np.zeros((n_tasks, vocabulary_size), np.int64)
    self._digest = hashlib.sha256(vocabulary_fingerprint.encode())

  def count(self, task: int, targets: np.ndarray, ended: bool) -> None:
    """Counts a training record; unless it is `ended`, the end of sequence counts too, which is not stored."""
    counts_V = self.unigram_counts[task]
    counts_V += np.bincount(targets, minlength=len(counts_V))
    counts_V[EOS_ID] += not ended

  def add(self, split: str, record: bytes) -> None:
    self._digest.update(f'{split} {len(record)}\n'.encode())
    self._digest.update(record)

  @property
  def fingerprint(self) -> str:
    return self._digest.hexdigest()


def windows(documents: Iterable[np.ndarray], length: int, separate: bool = True) -> Iterator[np.ndarray]:
  """Documents one after another in windows of `length` tokens, with an end of sequence after each if they `separate`.

  The last window may be shorter.
  """
  rest, held = [], 0
  for document in documents:
    rest.append((np.append(document, EOS_ID) if separate else document).astype(np.int32))
    held += len(rest[-1])
    if held >= length:
      joined = np.concatenate(rest)
      for start in range(0, held - length + 1, length):
        yield joined[start : start + length]
      rest = [joined[held - held % length :]]
      held %= length
  if held:
    yield np.concatenate(rest)


def evenly(items: Iterable[T], most: int) -> tuple[list[T], int]:
  """At most `most` items, evenly over all of them, in order, and how many there are in all.

  Never holds more than twice as many as it gives.
  """
  kept, stride, count = [], 1, 0
  for item in items:
    if most and count % stride == 0:
      kept.append(item)
      if len(kept) == 2 * most:
        kept, stride = kept[::2], 2 * stride
    count += 1
  return (kept if len(kept) <= most else [kept[i * len(kept) // most] for i in range(most)]), count
