"""Measures how fast training reads shards: shuffles windows of tokens like C4's, corrupts spans, and makes batches."""

import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np

from terraformer.bench.machine import require_disk, require_memory
from terraformer.config import DataConfig, SpanCorruptionConfig, UserError
from terraformer.data import parts, store
from terraformer.data.batches import Records, TrainBatches, prefetch
from terraformer.data.objectives import make_arrange

_VOCABULARY, _SENTINELS = 32_000, 100


@dataclasses.dataclass(frozen=True)
class InputSpeed:
  """The speed of one background thread, while the main thread waits for it.

  Attributes:
    tokens_per_second: input tokens per second, `inputs_length` per example; targets do not count.
    examples_per_second: examples per second.
    inputs_length, targets_length, window_length: tokens of an example, and of the window that it is made from.
    batch_size, examples: examples in a batch, and in total.
    seconds: duration of the measurement.
  """

  tokens_per_second: float
  examples_per_second: float
  inputs_length: int
  targets_length: int
  window_length: int
  batch_size: int
  examples: int
  seconds: float


def bench_input(inputs_length: int, targets_length: int, batch_size: int, examples: int) -> InputSpeed:
  """Writes `examples` windows of random tokens, with frequencies like C4's, reads all of them once, and returns the
  speed.

  Raises:
    UserError: if the lengths do not fit span corruption, the batch is larger than the number of examples, or the disk
      or memory is too small.
  """
  config = DataConfig(inputs_length=inputs_length, targets_length=targets_length, objective=SpanCorruptionConfig())
  if batch_size > examples:
    raise UserError(f'--batch_size: expected at most --examples ({examples}), found {batch_size}')
  require_disk(4 * config.window_length * examples, None, '--examples')
  require_memory(4 * (inputs_length + targets_length) * batch_size, '--batch_size')
  with tempfile.TemporaryDirectory() as folder:
    writer = parts.ShardWriter(Path(folder), 'train')
    for window in _windows(examples, config.window_length):
      writer.add(store.pack({'targets': window}, {}), {'targets': window})
    writer.close()
    corrupted = make_arrange(config, True, _VOCABULARY - 1 - np.arange(_SENTINELS))

    def arrange(record, rng):
      inputs, targets = corrupted(record, rng)
      return {'inputs': inputs, 'targets': targets, 'index': np.int64(record['index'])}

    records = Records([Path(folder) / name for name in writer.shards])
    batches = TrainBatches(records, arrange, batch_size, seed=0, shares=[(examples, 1.0)])
    batches.batch(0)
    n_batches = max(1, examples // batch_size)
    begun = time.perf_counter()
    n_examples = sum(len(batch['inputs']) for batch in prefetch(batches.batch, 1, 1 + n_batches))
    seconds = time.perf_counter() - begun
  per_second = n_examples / seconds
  return InputSpeed(
    inputs_length * per_second,
    per_second,
    inputs_length,
    targets_length,
    config.window_length,
    batch_size,
    n_examples,
    seconds,
  )


def _windows(count: int, length: int):
  """Yields windows in which the token of rank r has a frequency of about 1 / r, like words."""
  rng = np.random.default_rng(0)
  for _ in range(count):
    yield (np.exp(rng.random(length) * np.log(_VOCABULARY - _SENTINELS - 3)) + 2).astype(np.int32)


def as_line(result: InputSpeed) -> str:
  """Returns the measurement as a line of text."""
  return (
    f'{result.tokens_per_second:,.0f} input tokens per second: {result.examples:,} examples of '
    f'{result.inputs_length} + {result.targets_length} tokens in {result.seconds:.1f} s, with one thread'
  )
