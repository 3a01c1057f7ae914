"""Checksums of a checkpoint's files: written before the checkpoint is committed, verified before it is used.

Orbax silently restores a file with a flipped bit, and accepts an empty folder as a step.
"""

import concurrent.futures
import hashlib
import json
from pathlib import Path

from terraformer.config import UserError

NAME = 'MANIFEST.json'
_FORMAT = 1
_AT_ONCE = 1 << 24  # bytes
# Orbax writes these after the manifest. They contain times; the second is only checked to be valid JSON.
_METADATA = '_CHECKPOINT_METADATA'
_LATER = ('commit_success.txt', _METADATA)


class DamagedError(UserError):
  """A checkpoint differs from what was written."""


def write_manifest(folder: Path) -> None:
  """Writes the size and sha256 of every file below `folder` to the manifest there."""
  files = sorted(path for path in folder.rglob('*') if path.is_file())
  files = [path for path in files if str(path.relative_to(folder)) not in (NAME, *_LATER)]
  with concurrent.futures.ThreadPoolExecutor() as pool:
    sums = list(pool.map(_checksum, files))
  rows = {
    str(path.relative_to(folder)): [path.stat().st_size, checksum] for path, checksum in zip(files, sums, strict=True)
  }
  (folder / NAME).write_text(json.dumps({'format': _FORMAT, 'files': rows}, indent=1))


def verify(folder: Path) -> None:
  """Verifies every file of a checkpoint.

  Raises:
    DamagedError: if a file is missing, truncated or changed; names the first one.
  """
  if not any(folder.iterdir()):
    raise DamagedError(f'{folder}: the checkpoint is an empty folder')
  if not (folder / NAME).exists():
    raise DamagedError(f'{folder}: the checkpoint has no {NAME}')
  try:
    manifest = json.loads((folder / NAME).read_text())
    rows = {name: (int(size), str(checksum)) for name, (size, checksum) in manifest['files'].items()}
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise DamagedError(f'{folder / NAME}: cannot read the checksums: {error!r:.80}') from error
  try:
    json.loads((folder / _METADATA).read_text())
  except (ValueError, OSError) as error:
    raise DamagedError(f'{folder / _METADATA}: cannot read the JSON: {error!r:.80}') from error
  for name, (size, _) in rows.items():
    path = folder / name
    found = f'{path.stat().st_size:,}' if path.is_file() else 'no such file'
    if found != f'{size:,}':
      raise DamagedError(f'{path}: expected {size:,} bytes, found {found}')
  with concurrent.futures.ThreadPoolExecutor() as pool:
    for name, found in zip(rows, pool.map(lambda name: _checksum(folder / name), rows), strict=True):
      if found != rows[name][1]:
        raise DamagedError(f'{folder / name}: expected sha256 {rows[name][1][:12]}..., found {found[:12]}...')


def _checksum(path: Path) -> str:
  digest = hashlib.sha256()
  with path.open('rb') as file:
    while block := file.read(_AT_ONCE):
      digest.update(block)
  return digest.hexdigest()
