"""Prepares a task: runs its deterministic steps once, through seqio, into a folder that is read without TensorFlow.

The folder appears complete or not at all: the parts are written into a hidden sibling, which is renamed at the end. A
process that is started again resumes with the missing parts. Preparing again with the same configuration only reads
the manifest.
"""

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from terraformer.config import DataConfig, UserError, refused
from terraformer.data import addresses, parts, store
from terraformer.data import job as job_lib
from terraformer.data.report import bar
from terraformer.data.source import make_source
from terraformer.data.store import Manifest
from terraformer.data.tokenizer import Tokenizer
from terraformer.files import lock
from terraformer.paths import make_folder, target_of


@dataclasses.dataclass(frozen=True)
class Share:
  """The share of one of `count` processes: every `count`-th part, from number `index` on."""

  index: int
  count: int


WHOLE = Share(0, 1)


def is_prepared(config: DataConfig) -> bool:
  """Whether the folder of the config's task is prepared, with any configuration; raises UserError if it cannot be
  accessed."""
  with addresses.reaching(config.directory):
    return (store.folder_of(config) / store.MANIFEST).exists()


def prepare(config: DataConfig, show_progress: bool = True, share: Share = WHOLE) -> Manifest | None:
  """Prepares a task into `config.directory/config.task` and returns its manifest.

  Text is read from its source and tokenized with the configured vocabulary, which is trained on the task's training
  text if `tokenizer.path` is empty. A seqio task or mixture must be registered in this process and has its own
  vocabulary. A task with only `targets` is cut into windows of running text (`DataConfig.window_length`). All tasks of
  a mixture are prepared in full; training applies the rates. Data for an address (`gs://`) are first prepared in a
  local folder, so processes on other machines cannot share the work.

  Args:
    config: what to prepare.
    show_progress: whether to show progress bars.
    share: the parts that this process writes. The process that finds all parts written assembles them; if some are
      missing, the result is None.

  Raises:
    UserError: if the folder contains something else or data of another configuration, the source or the vocabulary is
      unusable, or TensorFlow and seqio are not installed.
  """
  if share.count > config.parts:
    raise UserError(f'DataConfig.parts: expected at least one part per process ({share.count}), found {config.parts}')
  if addresses.is_address(config.directory):
    return _prepare_elsewhere(config, show_progress, share)
  folder = target_of(store.folder_of(config))
  try:
    make_folder(folder.parent)
    if share == WHOLE:
      with _locked(folder):
        return _prepare(config, show_progress, share, contextlib.nullcontext)
    return _prepare(config, show_progress, share, functools.partial(_locked, folder))
  except OSError as error:
    raise refused(folder, 'write to', error) from error


def _prepare_elsewhere(config: DataConfig, show_progress: bool, share: Share) -> Manifest | None:
  """Prepares on this machine, copies to the address with the manifest last, and removes the local copy."""
  if is_prepared(config):
    with addresses.reaching(config.directory):
      return reuse(config)
  staging = addresses.staging_folder(config.directory)
  here = dataclasses.replace(config, directory=str(staging))
  manifest = prepare(here, show_progress, share)
  if manifest:
    with _locked(store.folder_of(here)), addresses.reaching(config.directory):
      if not is_prepared(config):
        with bar(show_progress, f'copying to {config.directory}'):
          addresses.copy_folder(store.folder_of(here), store.folder_of(config), last=store.MANIFEST)
      shutil.rmtree(store.folder_of(here))
  return manifest


def _prepare(config: DataConfig, show_progress: bool, share: Share, one_at_a_time: Callable) -> Manifest | None:
  """Prepares a share; inside `one_at_a_time`, one process runs at a time."""
  folder = target_of(store.folder_of(config))
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    return reuse(config)
  with _work_folder(folder, share) as in_work_folder:
    text = job_lib.find_text(config, show_progress, one_at_a_time)
    with one_at_a_time():
      if is_prepared(config):  # by another process in the meantime, which removed the work folder
        return reuse(config)
      job = job_lib.make_job(config, text, in_work_folder(job_lib.plan(config, text)), show_progress)
    numbers = range(share.index, config.parts, share.count)
    try:
      for number in bar(show_progress and len(numbers) > 1, 'preparing parts', 'part', numbers):
        parts.write_part(job, number, show_progress)
    except FileNotFoundError:
      if not is_prepared(config):  # otherwise another process has assembled the parts
        raise
    with one_at_a_time():
      if not is_prepared(config):
        if job.missing():
          return None
        parts.assemble(job, folder)
      _remove_work(folder)
      return reuse(config)


def reuse(config: DataConfig) -> Manifest:
  """Returns the manifest of the prepared data if their source files are unchanged."""
  manifest, folder = store.read_manifest(config), store.folder_of(config)
  for name, digest in manifest.sources.items():
    if Path(name).exists() and store.sha256_of(Path(name)) != digest:
      raise UserError(f'{folder}: {name} has changed since it was prepared; {store.ELSEWHERE}')
  if not make_source(config.source).is_as_prepared(manifest):
    raise UserError(f'{folder}: the source files have changed since preparation; {store.ELSEWHERE}')
  path = config.tokenizer.path
  if path and Path(path).exists():
    found = Tokenizer.open(path, manifest.sentinels).fingerprint
    if found != manifest.vocabulary_fingerprint:
      raise UserError(f'{folder}: {path} has changed since it was prepared; {store.ELSEWHERE}')
  return manifest


def _locked(folder: Path) -> contextlib.AbstractContextManager[None]:
  """Lets one process at a time prepare a folder; the others wait."""
  return lock(folder.parent / f'.{folder.name}.lock')


@contextlib.contextmanager
def _work_folder(folder: Path, share: Share) -> Iterator[Callable[[str], Path]]:
  """Yields a function that creates the hidden sibling folder of a plan, or finds the one that a killed process left.

  It removes the folders of other plans, and this plan's folder if an exception ends the work before a part is complete.
  """
  made = []

  def make(plan: str) -> Path:
    made.append(folder.with_name(f'.{folder.name}.partial-{plan}'))
    if share == WHOLE:
      _remove_work(folder, but=made[0])
    made[0].mkdir(exist_ok=True)
    return made[0]

  try:
    yield make
  finally:
    if share == WHOLE and made and not any(path.suffix == '' for path in made[0].glob('part-*')):
      shutil.rmtree(made[0], ignore_errors=True)


def _remove_work(folder: Path, but: Path | None = None) -> None:
  """Removes the work folders next to a folder; in the folder `but`, which is resumed, only incomplete parts."""
  for left in folder.parent.glob(f'.{folder.name}.partial-*'):
    if left != but:
      shutil.rmtree(left, ignore_errors=True)
  for left in but.glob('part-*.*') if but else ():
    shutil.rmtree(left, ignore_errors=True)
