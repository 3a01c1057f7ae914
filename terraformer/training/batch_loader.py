"""Loads global batches onto devices; each process reads the examples of its own devices."""

import math
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.sharding import NamedSharding

from terraformer.config import TrainConfig, UserError
from terraformer.data.batches import Prepared
from terraformer.training.step import Batch


def batch_number(step: int, skipped: Sequence[int]) -> int:
  """Returns the number of the batch that step `step` (from 0) reads, not counting skipped batches."""
  for number in sorted(skipped):
    step += number <= step
  return step


class BatchLoader:
  """Batches of prepared data.

  Attributes:
    skipped: numbers of the skipped batches; more may be added between steps.
  """

  def __init__(self, data: Prepared, config: TrainConfig, sharding: NamedSharding, skipped: list[int]):
    self._data, self._sharding = data, sharding
    self._size, self._n_held_out = config.batch_size, config.batch_size * config.eval_batches
    self._rows = local_rows(sharding, config.batch_size)
    self._batches = data.train_batches(config.batch_size, config.seed)
    self.skipped = skipped

  def train(self, step: int) -> tuple[np.ndarray, Batch]:
    """Returns the ids of all examples in the batch of a step (from 0), and the batch.

    Raises:
      UserError: if other records were read.
    """
    number = batch_number(step, self.skipped)
    ids_B, rows = self._batches.ids(number), self._batches.batch(number, self._rows)
    if not np.array_equal(rows['index'], ids_B[self._rows]):
      raise UserError(f'batch {number}: expected the records {ids_B[self._rows]}, found {rows["index"]}')
    return ids_B, self._place(rows)

  def held_out(self) -> Iterator[tuple[Batch, Batch | None]]:
    """Yields the same batches of the validation split in every call, each unchanged and with shuffled sources, as
    `Prepared.eval_batches_twice` does."""
    for rows, shuffled in self._data.eval_batches_twice('validation', self._size, self._n_held_out, self._rows):
      yield self._place(rows), None if shuffled is None else self._place(shuffled)

  def baselines(self) -> dict[str, float]:
    """Returns baseline perplexities on `held_out` by name; empty without a validation split."""
    if not self._data.size('validation'):
      return {}
    held_out = self._data.eval_batches('validation', self._size, self._n_held_out)
    losses = np.concatenate([self._data.unigram_losses(batch['targets']) for batch in held_out])
    return {'unigram model': math.exp(losses.mean())}

  def _place(self, rows: dict[str, np.ndarray]) -> Batch:
    def place(local: np.ndarray) -> jax.Array:
      # The rows of this process are in the order of their global numbers.
      return jax.make_array_from_callback(
        (self._size, *local.shape[1:]),
        self._sharding,
        lambda index: local[np.searchsorted(self._rows, np.arange(self._size)[index[0]])],
      )

    return {name: place(local) for name, local in rows.items() if name != 'index'}


def local_rows(sharding: NamedSharding, batch_size: int) -> np.ndarray:
  """Returns the numbers of the rows of a global batch on this process's devices, in order."""
  indices = sharding.addressable_devices_indices_map((batch_size,)).values()
  return np.unique(np.concatenate([np.arange(batch_size)[index[0]] for index in indices]))
