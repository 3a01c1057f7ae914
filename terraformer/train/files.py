"""Files that are whole at every moment."""

from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
  """Writes a file beside `path` and gives it that name: whoever reads, or kills, finds the old one or the new one."""
  temporary = path.with_suffix('.tmp')
  try:
    temporary.write_bytes(data)
    temporary.replace(path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
