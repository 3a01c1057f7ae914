"""Memory that is still available to this process."""

import os
from pathlib import Path

_GROUP = Path('/sys/fs/cgroup')


def available_bytes() -> int:
  """Returns the bytes that this process can still take: those of the machine, or of its container if that has less."""
  found = [_of_machine()]
  try:
    most, taken = ((_GROUP / name).read_text() for name in ('memory.max', 'memory.current'))
    found.append(max(0, int(most) - int(taken)))
  except (OSError, ValueError):
    pass  # no container, or one without a limit
  return min(found)


def _of_machine() -> int:
  try:
    lines = dict(line.split(':') for line in Path('/proc/meminfo').read_text().splitlines())
    return 1024 * int(lines['MemAvailable'].split()[0])
  except (OSError, ValueError, KeyError):  # not Linux
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2
