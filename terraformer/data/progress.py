"""Progress on the standard error."""

import sys

from tqdm import tqdm


def bar(progress: bool, what: str, unit: str = 'step', items=None, total: int | None = None) -> tqdm:
  """A progress bar; a `step` shows its time alone."""
  return tqdm(
    items,
    desc=what,
    unit=unit,
    total=total,
    disable=not progress,
    bar_format='{desc} [{elapsed}]' if unit == 'step' else None,
    mininterval=0.2 if sys.stderr.isatty() else 10,
  )
