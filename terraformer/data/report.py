"""Reports on preparation for the user: progress on standard error, and a summary of the result."""

import sys
from collections.abc import Iterator

from tqdm import tqdm

from terraformer.data.store import Manifest

_REASONS = {
  'empty': 'omitted examples without text',
  'features cut': 'cut texts',
  'windows of one token': 'omitted tokens at the end of a text',
  'held out as well': 'training examples whose exact text is also in validation or test',
  'beyond max_examples': 'omitted training examples beyond max_examples',
  'files of another kind': 'skipped files of another kind',
  'files of no split': 'skipped files whose names contain no split',
}


def bar(show_progress: bool, what: str, unit: str = 'step', items=None, total: int | None = None) -> tqdm:
  """Returns a progress bar; for the unit `step` it shows only the elapsed time."""
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
  """Yields a line for each reason for omitting or cutting examples, with the first case if it is known."""
  for reason, count in manifest.dropped.items():
    if count:
      first = manifest.first_dropped.get(reason)
      yield f'{_REASONS.get(reason, reason)}: {count:,}{f", first {first}" if first else ""}'


def shares(manifest: Manifest) -> Iterator[str]:
  """Yields a line for each task of a mixture."""
  rates = sum(task['rate'] for task in manifest.tasks.values())
  for name, task in manifest.tasks.items() if len(manifest.tasks) > 1 else ():
    count = task['packed'] or task['examples']['train']
    yield f'{name}: {task["rate"] / rates:.1%} of the examples that training reads, of {count:,}'


def lines(manifest: Manifest) -> Iterator[str]:
  """Yields all lines that `prepare`, and `train` after preparing data, print about the data."""
  yield from shares(manifest)
  yield from skipped(manifest)
  yield from packs(manifest)


def packs(manifest: Manifest) -> Iterator[str]:
  """Yields a line on how much padding packing saves, if the training split is packed."""
  if packed := manifest.packed:
    yield (
      f'{packed["examples"]:,} training examples are in {packed["packs"]:,} packs: padding is '
      f'{packed["padding_after"]:.1%} of them, and would be {packed["padding_before"]:.1%} in a row for each'
    )
