"""Prepares a task: runs its deterministic part once, through seqio, into a folder that is read without TensorFlow.

The folder appears at once, complete, or not at all: everything is written into a hidden sibling, part by part, which
is renamed at the end. A process that is started again goes on with the parts that are missing. Preparing again with the
same configuration reads the manifest and does nothing.
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from terraformer import config as config_lib
from terraformer.config import DataConfig, UserError, refused
from terraformer.data import addresses, local_files, local_folder, own_texts, parts, store
from terraformer.data.progress import bar
from terraformer.data.store import Manifest, Origin
from terraformer.data.vocabulary import Vocabulary, train_vocabulary


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


def prepare(config: DataConfig, progress: bool = True, share: Share = WHOLE) -> Manifest | None:
  """Prepares a task into `config.directory/config.task` and returns its manifest.

  A task of this library is read from its source and gets the vocabulary of the config, trained on its own training text
  if `vocabulary.path` is empty. Any other seqio task or mixture must be registered in this process and brings its own.
  A task with `targets` alone is cut into windows of running text (`DataConfig.window_length`). Of a mixture every task
  is prepared in whole; its rates count when training reads it. What is to lie at an
  address (`gs://`) is prepared in a folder of this machine first, and processes of other machines cannot share it.

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
    return _prepare_elsewhere(config, progress, share)
  folder = store.folder_of(config)
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    if share == WHOLE:
      with _locked(folder):
        return _prepare(config, progress, share, contextlib.nullcontext)
    return _prepare(config, progress, share, functools.partial(_locked, folder))
  except OSError as error:
    raise refused(folder, 'a folder that can be written', error) from error


def _prepare_elsewhere(config: DataConfig, progress: bool, share: Share) -> Manifest | None:
  """Prepares on this machine and copies to the address, the manifest last; then nothing is left here."""
  if is_prepared(config):
    with addresses.reaching(config.directory):
      return reuse(config)
  staging = addresses.staging_folder(config.directory)
  here = dataclasses.replace(config, directory=str(staging))
  manifest = prepare(here, progress, share)
  if manifest:
    with _locked(store.folder_of(here)), addresses.reaching(config.directory):
      if not is_prepared(config):
        with bar(progress, f'copying to {config.directory}'):
          addresses.copy_folder(store.folder_of(here), store.folder_of(config), last=store.MANIFEST)
      shutil.rmtree(store.folder_of(here))
  return manifest


def _prepare(config: DataConfig, progress: bool, share: Share, lock: Callable) -> Manifest | None:
  """Prepares a share; `lock` lets one process at a time do what is within."""
  folder = store.folder_of(config)
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    return reuse(config)
  with _work_folder(folder, share) as in_work_folder:
    job = _begin(config, progress, in_work_folder, lock)
    numbers = range(share.index, config.parts, share.count)
    try:
      for number in bar(progress and len(numbers) > 1, 'preparing parts', 'part', numbers):
        parts.write_part(job, number, progress)
    except FileNotFoundError:
      if not is_prepared(config):  # else another process has found all parts written and put them together
        raise
    with lock():
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
  if not _has_listed(config, manifest):
    raise UserError(f'{folder}: expected the files that it was prepared from, found others; remove the folder to go on')
  path = config.vocabulary.path
  if path and Path(path).exists():
    found = Vocabulary.open(path, manifest.sentinels).fingerprint
    if found != manifest.vocabulary_fingerprint:
      raise UserError(f'{folder}: expected {path} as it was prepared, found it changed; remove the folder to go on')
  return manifest


def _has_listed(config: DataConfig, manifest: Manifest) -> bool:
  """Whether the configuration finds the files that the manifest tells of; also where it finds none at all, since data
  are read where they were not prepared."""
  if config.task not in ('local_files', 'local_folder'):
    return True
  try:
    if config.task == 'local_folder':
      return local_folder.version_of(config.local_folder) == manifest.corpus_fingerprint
    found = local_files.source_paths(config.local_files)
  except UserError:
    return True
  return {str(path) for paths in found.values() for path in paths} == manifest.sources.keys()


def _begin(config: DataConfig, progress: bool, in_work_folder: Callable[[str], Path], lock: Callable) -> parts.Job:
  """Reads what has to be known before the first part: the source, the vocabulary, the task."""
  if not all(importlib.util.find_spec(name) for name in ('seqio', 'tensorflow')):
    raise UserError("preparing data: expected seqio and TensorFlow, found none; pip install 'terraformer-jax[data]'")
  given = Vocabulary.open(config.vocabulary.path, config.vocabulary.sentinels) if config.vocabulary.path else None
  examples, origin, texts = None, Origin(), ()
  if config.task in store.HELD_TASKS:
    examples, origin = own_texts.read(config, progress)
    texts = own_texts.training_texts(examples)
  else:
    _, sources, tasks = import_tasks(progress)
    if config.task in store.OWN_TASKS:
      with lock():  # TFDS may have to build it first
        origin = sources.origin_of(config)
      texts = sources.texts(config)
    else:
      task = tasks.find(config.task)
      own = tasks.vocabulary_of(task)
      if given and Vocabulary.from_bytes(given.model_bytes, own.sentinels).fingerprint != own.fingerprint:
        raise UserError(f'VocabularyConfig.path: expected the vocabulary of the task {config.task}, found another')
      given = own
  folder = in_work_folder(_plan(config, origin, given))
  with lock():
    vocabulary = _vocabulary(folder / store.VOCABULARY, config, given, texts if given is None else (), progress)
  if config.task in store.OWN_TASKS:
    registered, sources, tasks = import_tasks(progress)
    task = registered.unregistered(config, folder / store.VOCABULARY, examples)
  weighted = tasks.weighted(task)
  if others := sources.passed_over([one for one, _ in weighted]):
    reason = 'files of another kind'
    origin = dataclasses.replace(
      origin,
      dropped=origin.dropped | {reason: len(others)},
      first_dropped=origin.first_dropped | {reason: others[0]},
    )
  return parts.Job(folder, config, weighted, tasks.run, vocabulary, origin)


def _plan(config: DataConfig, origin: Origin, vocabulary: Vocabulary | None) -> str:
  """A name for all that the result depends on: parts of another plan are not gone on with."""
  what = config_lib.to_dict(dataclasses.replace(config, directory='-'))
  plan = [store.FORMAT, what, dataclasses.asdict(origin), vocabulary.fingerprint if vocabulary else '']
  return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]


def import_tasks(progress: bool):
  """The modules that import TensorFlow, after all that can be wrong without it, and quietly."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
  with bar(progress and 'tensorflow' not in sys.modules, 'loading TensorFlow'):
    from terraformer.data import registered, sources, tasks
  return registered, sources, tasks


def train_vocabulary_of(config: DataConfig, path: Path, progress: bool) -> None:
  """Trains a vocabulary on one of this library's tasks, in this process, and writes it.

  Raises:
    UserError: if the source cannot be read, or the vocabulary cannot be trained or written.
  """
  if config.task in store.HELD_TASKS:
    texts = own_texts.training_texts(own_texts.read(config, progress)[0])
  else:
    texts = import_tasks(progress)[1].texts(config)
  with bar(progress, f'training a vocabulary of {config.vocabulary.size}'):
    vocabulary = train_vocabulary(texts, config.vocabulary.size, config.vocabulary.sentinels)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(vocabulary.model_bytes)
  except OSError as error:
    raise refused(path, 'a file that can be written', error) from error


def _vocabulary(
  path: Path, config: DataConfig, given: Vocabulary | None, texts: Iterable[str], progress: bool
) -> Vocabulary:
  """The given vocabulary, or one trained on the texts; kept at `path` for the processes that go on."""
  wanted = config.vocabulary
  if path.exists():
    return Vocabulary.open(path, given.sentinels if given else wanted.sentinels)
  if given is None:
    with bar(progress, f'training a vocabulary of {wanted.size}'):
      given = train_vocabulary(texts, wanted.size, wanted.sentinels)
  aside = path.with_suffix('.partial')
  aside.write_bytes(given.model_bytes)
  aside.rename(path)
  return given


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
  """Lets one process at a time prepare a folder; the others wait and then find it prepared."""
  with (folder.parent / f'.{folder.name}.lock').open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


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
