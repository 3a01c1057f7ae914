"""Files at an address, downloaded once into the cache: `gs://bucket/folder`, `https://host/file`, `hf://owner/name`.

Buckets and hosts are read through fsspec, and the hub of Hugging Face through its own library; both are extras. What
was downloaded before is not looked at again, so it needs no network.
"""

import base64
import contextlib
import fnmatch
import hashlib
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from terraformer.config import UserError, first_line
from terraformer.data.addresses import is_address
from terraformer.files import lock, write_whole
from terraformer.paths import cache_folder, make_folder

_PIECE = 1 << 20  # bytes that are in memory at one time
_COMPLETE, _LOCK = '.complete.json', '.lock'
_HUB = re.compile(r'hf://(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?/?')
_ATTEMPTS = 3
_PATIENCE = 2.0  # seconds until a message says what takes so long
_NOT_FOUND = 404  # of HTTP
_WEB = ('http://', 'https://')
_ADVICE = '; a web server does not list its files, so give the address of one'


def local_copy(
  address: str | os.PathLike[str],
  patterns: Sequence[str] = ('*',),
  show_progress: bool | None = None,
  needed: Sequence[str] = (),
) -> Path:
  """Returns a local path for an address: of a file, or of a folder with the files in it.

  A download that was interrupted goes on where it ended. Sizes are compared, and checksums where the host has them.

  Args:
    address: an address, or a local path, which is returned as it is.
    patterns: of the names of the files of a folder that are wanted. A web server does not list its files, so that only
      those whose names are given are found there.
    show_progress: whether to show progress bars; None if the standard error is a terminal.
    needed: those of the patterns without which the folder is of no use.

  Raises:
    UserError: if the address cannot be reached or has no such file, a package is missing, or a file is damaged.
  """
  text = os.fspath(address)
  if not is_address(text):
    return Path(text)
  if text.startswith('hf://'):
    return _from_hub(text, patterns, show_progress)
  key = hashlib.sha256('\n'.join([text, *patterns]).encode()).hexdigest()[:16]
  folder = cache_folder() / 'downloads' / key
  make_folder(folder)
  with lock(folder / _LOCK):
    if not (folder / _COMPLETE).exists():
      with _reaching(text, folder):
        name = _download(text, folder, patterns, show_progress, needed)
      write_whole(folder / _COMPLETE, json.dumps({'address': text, 'file': name}).encode())
    name = json.loads((folder / _COMPLETE).read_text())['file']
  return folder / name if name else folder


@contextlib.contextmanager
def _reaching(address: str, folder: Path | None = None) -> Iterator[None]:
  """Turns errors of libraries into one sentence about the address, and says what takes long.

  Args:
    address: the address.
    folder: where the download is kept; None if a library knows.
  """
  late = threading.Timer(_PATIENCE, print, [f'reading from {address} ...'], {'file': sys.stderr})
  late.daemon = True
  late.start()
  try:
    yield
  except UserError:
    raise
  except ImportError as error:
    raise UserError(
      f'{address}: a package is missing ({error}); install the extra: pip install terraformer-jax[remote]'
    ) from error
  except Exception as error:  # no network, no permission, no such host or file
    if _is_absence(error):
      raise UserError(f'{address}: there is no such file') from error
    cause = error.__cause__ or error
    is_kept = folder is not None and any(path.name != _LOCK and path.suffix != '.version' for path in folder.iterdir())
    advice = (
      'what was downloaded is kept, and the same command goes on with it' if is_kept else 'check it and the network'
    )
    raise UserError(
      f'{address}: cannot be reached ({type(cause).__name__}: {first_line(cause):.200}); {advice}'
    ) from error
  finally:
    late.cancel()


def _is_absence(error: Exception) -> bool:
  """Whether a file is not there; fsspec says so of every failure of a host as well."""
  cause = error.__cause__ if isinstance(error, FileNotFoundError) else error
  return cause is None or getattr(cause, 'status', None) == _NOT_FOUND


def _download(
  address: str, folder: Path, patterns: Sequence[str], show_progress: bool | None, needed: Sequence[str]
) -> str:
  """Downloads a file and returns its name, or the files of a folder and returns nothing."""
  import fsspec

  logging.getLogger('gcsfs').setLevel(logging.CRITICAL)  # it logs the stack of an error that it raises as well
  system, path = fsspec.core.url_to_fs(address)
  if address.startswith(_WEB) and '*' not in patterns:
    files = _named(system, path, patterns)
  else:
    about = system.info(path)
    if about['type'] == 'file':
      _fetch(system, about, folder, show_progress)
      return _name(about)
    files = [each for each in system.ls(path, detail=True) if each['type'] == 'file' and each['size']]
    files = [each for each in files if any(fnmatch.fnmatch(_name(each), pattern) for pattern in patterns)]
  for pattern in needed:
    if not fnmatch.filter(map(_name, files), pattern):
      advice = _ADVICE if address.startswith(_WEB) and '*' in pattern else ''
      raise UserError(f'{address}: there is no file {pattern} in this folder{advice}')
  if not files:
    raise UserError(f'{address}: there is none of the files {", ".join(patterns)}')
  for each in files:
    _fetch(system, each, folder, show_progress)
  return ''


def _named(system: Any, path: str, patterns: Sequence[str]) -> list[dict[str, Any]]:
  """The files of a folder of a web server that have these names; patterns are left out."""
  found = []
  for name in patterns:
    if '*' not in name:
      try:
        found.append(system.info(f'{path.rstrip("/")}/{name}'))
      except FileNotFoundError as error:
        if not _is_absence(error):
          raise
  return found


def _name(about: dict[str, Any]) -> str:
  """The name of a file within its folder."""
  return PurePosixPath(about['name']).name


def _fetch(system: Any, about: dict[str, Any], folder: Path, show_progress: bool | None) -> None:
  """Downloads one file; what `.part` has of it already is kept if the file has not changed since."""
  name, size = _name(about), about['size']
  path, part, version_file = folder / name, folder / f'{name}.part', folder / f'{name}.version'
  version = json.dumps([size, str(about.get('etag') or about.get('ETag') or about.get('mtime'))])
  if path.exists():
    return
  if not (version_file.exists() and version_file.read_text() == version):
    part.unlink(missing_ok=True)
    version_file.write_text(version)
  for attempt in range(_ATTEMPTS):
    try:
      _append(system, about['name'], part, size, name, show_progress)
      break
    except (OSError, TimeoutError):
      if attempt + 1 == _ATTEMPTS or not part.exists():
        raise
  _verify(part, about, name)
  part.rename(path)
  version_file.unlink()


def _append(system: Any, remote: str, part: Path, size: int | None, name: str, show_progress: bool | None) -> None:
  have = part.stat().st_size if part.exists() else 0
  is_hidden = None if show_progress is None else not show_progress  # None hides it where there is no terminal
  if size is not None and have > size:
    part.unlink()
    have = 0
  with (
    system.open(remote, 'rb', block_size=_PIECE * 4) as source,
    part.open('ab') as target,
    tqdm(total=size, initial=have, desc=name, unit='B', unit_scale=True, disable=is_hidden) as bar,
  ):
    if have:
      source.seek(have)
    while piece := source.read(_PIECE):
      target.write(piece)
      bar.update(len(piece))


def _verify(part: Path, about: dict[str, Any], name: str) -> None:
  """Compares size and checksum; removes a file that differs."""
  found, expected = part.stat().st_size, about['size']
  if expected is not None and found != expected:
    if found > expected:
      part.unlink()
    raise OSError(f'{name} has {found:,} of {expected:,} bytes')
  if md5 := about.get('md5Hash'):  # of buckets of Google
    digest = hashlib.md5(usedforsecurity=False)
    with part.open('rb') as file:
      while block := file.read(_PIECE):
        digest.update(block)
    if base64.b64encode(digest.digest()).decode() != md5:
      part.unlink()
      raise UserError(f'{name}: the download is damaged; run the same command again to download it anew')


def _from_hub(address: str, patterns: Sequence[str], show_progress: bool | None) -> Path:
  """The snapshot of a repository."""
  parsed = _HUB.fullmatch(address)
  if parsed is None:
    raise UserError(f'{address}: an address of the hub has the form hf://owner/name or hf://owner/name@revision')
  with _reaching(address):
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    if show_progress is False:
      disable_progress_bars()
    return Path(
      snapshot_download(
        parsed['name'],
        revision=parsed['revision'],
        cache_dir=cache_folder() / 'hub',
        allow_patterns=list(patterns),
      )
    )
