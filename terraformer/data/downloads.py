"""Files at an address, downloaded once into the cache: `gs://bucket/folder`, `https://host/file`, `hf://owner/name`.

Buckets and hosts are read through fsspec, and the hub of Hugging Face through its own library; both are extras. What
was downloaded before is not looked at again, so it needs no network.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
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


def local_copy(
  address: str | os.PathLike[str], wanted: Callable[[str], bool] = lambda name: True, show_progress: bool = False
) -> Path:
  """Returns a local path for an address: of a file, or of a folder with the files in it.

  A download that was interrupted goes on where it ended. Sizes are compared, and checksums where the host has them.

  Args:
    address: an address, or a local path, which is returned as it is.
    wanted: whether a file of a folder is needed, by its name.
    show_progress: whether to show progress bars.

  Raises:
    UserError: if the address cannot be reached or has no such file, a package is missing, or a file is damaged.
  """
  text = os.fspath(address)
  if not is_address(text):
    return Path(text)
  if text.startswith('hf://'):
    return _from_hub(text, show_progress)
  folder = cache_folder() / 'downloads' / hashlib.sha256(text.encode()).hexdigest()[:16]
  make_folder(folder)
  with lock(folder / _LOCK):
    if not (folder / _COMPLETE).exists():
      with _reaching(text):
        names = _download(text, folder, wanted, show_progress)
      write_whole(folder / _COMPLETE, json.dumps({'address': text, **names}).encode())
    found = json.loads((folder / _COMPLETE).read_text())
  return folder / found['file'] if found['file'] else folder


@contextlib.contextmanager
def _reaching(address: str) -> Iterator[None]:
  """Turns errors of libraries into one sentence about the address."""
  try:
    yield
  except UserError:
    raise
  except ImportError as error:
    raise UserError(
      f'{address}: a package is missing ({error}); install the extra: pip install terraformer-jax[remote]'
    ) from error
  except FileNotFoundError as error:
    raise UserError(f'{address}: there is no such file') from error
  except Exception as error:  # no network, no permission, no such host
    raise UserError(
      f'{address}: cannot be reached ({type(error).__name__}: {first_line(error):.200}); what is there already is kept, '
      'and the same command goes on with it'
    ) from error


def _download(address: str, folder: Path, wanted: Callable[[str], bool], show_progress: bool) -> dict[str, str]:
  """Downloads a file, or the files of a folder, and returns which file it was."""
  import fsspec

  system, path = fsspec.core.url_to_fs(address)
  about = system.info(path)
  if about['type'] == 'file':
    _fetch(system, about, folder, show_progress)
    return {'file': PurePosixPath(about['name']).name}
  files = [each for each in system.ls(path, detail=True) if each['type'] == 'file' and each['size']]
  files = [each for each in files if wanted(PurePosixPath(each['name']).name)]
  if not files:
    raise UserError(f'{address}: there is no file of the kind that is needed')
  for each in files:
    _fetch(system, each, folder, show_progress)
  return {'file': ''}


def _fetch(system: Any, about: dict[str, Any], folder: Path, show_progress: bool) -> None:
  """Downloads one file; what `.part` has of it already is kept if the file has not changed since."""
  name, size = PurePosixPath(about['name']).name, about['size']
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


def _append(system: Any, remote: str, part: Path, size: int | None, name: str, show_progress: bool) -> None:
  have = part.stat().st_size if part.exists() else 0
  if size is not None and have > size:
    part.unlink()
    have = 0
  with (
    system.open(remote, 'rb', block_size=_PIECE * 4) as source,
    part.open('ab') as target,
    tqdm(total=size, initial=have, desc=name, unit='B', unit_scale=True, disable=not show_progress) as bar,
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


def _from_hub(address: str, show_progress: bool) -> Path:
  """The snapshot of a repository."""
  parsed = _HUB.fullmatch(address)
  if parsed is None:
    raise UserError(f'{address}: an address of the hub has the form hf://owner/name or hf://owner/name@revision')
  with _reaching(address):
    import huggingface_hub

    if not show_progress:
      huggingface_hub.utils.disable_progress_bars()
    return Path(
      huggingface_hub.snapshot_download(
        parsed['name'],
        revision=parsed['revision'],
        cache_dir=cache_folder() / 'hub',
        allow_patterns=['config.json', 'model*.safetensors', 'model.safetensors.index.json', 'vocabulary.model'],
      )
    )
