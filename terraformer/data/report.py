"""What the user is told of preparing: progress on the standard error, and afterwards what was prepared, in words."""

import sys
from collections.abc import Iterator

from tqdm import tqdm

from terraformer.data.store import Manifest

_REASONS = {
  'empty': 'examples without text, left out',
  'features cut': 'texts that were cut',
  'windows of one token': 'tokens at the end of a text, left out',
  'held out as well': 'training examples that validation or test has as well, word for word',
  'beyond max_examples': 'training examples beyond max_examples, left out',
  'files of another kind': 'files of another kind, passed over',
  'files of no split': 'files whose names tell no split, passed over',
}


def bar(show_progress: bool, what: str, unit: str = 'step', items=None, total: int | None = None) -> tqdm:
  """A progress bar; a `step` shows its time alone."""
  return tqdm(
    items,
    desc=what,
    unit=unit,
    total=total,
    disable=not show_progress,
    bar_format='{desc} [{elapsed}]' if unit == 'step' else None,
    mininterval=0.2 if sys.stderr.isatty() else 10,
  )


def skipped(manifest: Manifest) -> Iterator[str]:
  """A line for each reason for which something was left out or cut, with the first case where it is known."""
  for reason, count in manifest.dropped.items():
    if count:
      first = manifest.first_dropped.get(reason)
      yield f'{_REASONS.get(reason, reason)}: {count:,}{f", first {first}" if first else ""}'


def shares(manifest: Manifest) -> Iterator[str]:
  """A line for each task of a mixture."""
  rates = sum(task['rate'] for task in manifest.tasks.values())
  for name, task in manifest.tasks.items() if len(manifest.tasks) > 1 else ():
    count = task['packed'] or task['examples']['train']
    yield f'{name}: {task["rate"] / rates:.1%} of the examples that training reads, of {count:,}'


def packs(manifest: Manifest) -> Iterator[str]:
  """A line on what packing is good for, where the training split is packed."""
  if packed := manifest.packed:
    yield (
      f'{packed["examples"]:,} training examples are in {packed["packs"]:,} packs: padding is '
      f'{packed["padding_after"]:.1%} of them, and would be {packed["padding_before"]:.1%} in a row for each'
    )
