"""Prepares a task: runs its deterministic part once, through seqio, into a folder that is read without TensorFlow.

The folder appears at once, complete, or not at all: everything is written into a hidden sibling, part by part, which
is renamed at the end. A process that is started again goes on with the parts that are missing. Preparing again with the
same configuration reads the manifest and does nothing.
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
  """Every `count`-th part, from number `index` on: what one of `count` processes writes."""

  index: int
  count: int


WHOLE = Share(0, 1)


def is_prepared(config: DataConfig) -> bool:
  """Whether the folder of the config's task is prepared, with whatever configuration; raises UserError where it cannot
  be reached."""
  with addresses.reaching(config.directory):
    return (store.folder_of(config) / store.MANIFEST).exists()


def prepare(config: DataConfig, show_progress: bool = True, share: Share = WHOLE) -> Manifest | None:
  """Prepares a task into `config.directory/config.task` and returns its manifest.

  Text is read from its source and gets the vocabulary of the config, trained on its own training text if
  `tokenizer.path` is empty. A seqio task or mixture must be registered in this process and brings its own vocabulary.
  A task with `targets` alone is cut into windows of running text (`DataConfig.window_length`). Of a mixture every task
  is prepared in whole; its rates count when training reads it. What is to lie at an address (`gs://`) is prepared in a
  folder of this machine first, and processes of other machines cannot share it.

  Args:
    config: what to prepare.
    progress: whether to show progress bars.
    share: the parts that this process writes. The one that finds all parts written assembles them; where some are
      missing, None is returned.

  Raises:
    UserError: if the folder holds something else or data of another configuration, the source or the vocabulary is not
      usable, or TensorFlow and seqio are not installed.
  """
  if share.count > config.parts:
    raise UserError(f'DataConfig.parts: expected at least one a process ({share.count}), found {config.parts}')
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
    raise refused(folder, 'a folder that can be written', error) from error


def _prepare_elsewhere(config: DataConfig, show_progress: bool, share: Share) -> Manifest | None:
  """Prepares on this machine and copies to the address, the manifest last; then nothing is left here."""
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
  """Prepares a share; `one_at_a_time` lets one process at a time do what is within."""
  folder = target_of(store.folder_of(config))
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    return reuse(config)
  with _work_folder(folder, share) as in_work_folder:
    text = job_lib.find_text(config, show_progress, one_at_a_time)
    with one_at_a_time():
      if is_prepared(config):  # by another process in the meantime, which has removed the work folder
        return reuse(config)
      job = job_lib.make_job(config, text, in_work_folder(job_lib.plan(config, text)), show_progress)
    numbers = range(share.index, config.parts, share.count)
    try:
      for number in bar(show_progress and len(numbers) > 1, 'preparing parts', 'part', numbers):
        parts.write_part(job, number, show_progress)
    except FileNotFoundError:
      if not is_prepared(config):  # else another process has found all parts written and put them together
        raise
    with one_at_a_time():
      if not is_prepared(config):
        if job.missing():
          return None
        parts.assemble(job, folder)
      _remove_work(folder)
      return reuse(config)


def reuse(config: DataConfig) -> Manifest:
  """The manifest of what is there, if the files that it was made from are as they were."""
  manifest, folder = store.read_manifest(config), store.folder_of(config)
  for name, digest in manifest.sources.items():
    if Path(name).exists() and store.sha256_of(Path(name)) != digest:
      raise UserError(f'{folder}: expected {name} as it was prepared, found it changed; remove the folder to go on')
  if not make_source(config.source).is_as_prepared(manifest):
    raise UserError(f'{folder}: expected the files that it was prepared from, found others; remove the folder to go on')
  path = config.tokenizer.path
  if path and Path(path).exists():
    found = Tokenizer.open(path, manifest.sentinels).fingerprint
    if found != manifest.vocabulary_fingerprint:
      raise UserError(f'{folder}: expected {path} as it was prepared, found it changed; remove the folder to go on')
  return manifest


def _locked(folder: Path) -> contextlib.AbstractContextManager[None]:
  """Lets one process at a time prepare a folder; the others wait and then find it prepared."""
  return lock(folder.parent / f'.{folder.name}.lock')


@contextlib.contextmanager
def _work_folder(folder: Path, share: Share) -> Iterator[Callable[[str], Path]]:
  """A function that makes the hidden sibling of a plan, or finds the one that a killed process left.

  What another plan left is removed, and so is this one's where it is left by an exception without a finished part.
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
  """Removes what processes left beside a folder; of the plan that is gone on with, the parts that are not whole."""
  for left in folder.parent.glob(f'.{folder.name}.partial-*'):
    if left != but:
      shutil.rmtree(left, ignore_errors=True)
  for left in but.glob('part-*.*') if but else ():
    shutil.rmtree(left, ignore_errors=True)
