"""What has to be known before the first part of a task is written: its text, its vocabulary, its seqio tasks."""

import dataclasses
import hashlib
import importlib.util
import json
import os
import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from terraformer import config as config_lib
from terraformer.config import DataConfig, UserError, refused
from terraformer.data import leaks, local_folder, own_texts, store
from terraformer.data.addresses import place_of
from terraformer.data.job import Component, Job
from terraformer.data.progress import bar
from terraformer.data.store import Origin
from terraformer.data.vocabulary import Vocabulary, train_vocabulary
from terraformer.files import write_whole
from terraformer.paths import make_folder


@dataclasses.dataclass(frozen=True)
class Text:
  """What is prepared.

  Attributes:
    origin: what is known of it.
    features: of its examples when they are read.
    names: of the seqio tasks that it has.
    vocabulary: that it brings or that the config names; None where one is to be trained.
    samples: texts that it can be trained on.
    components: of the path of a vocabulary: the tasks.
    run: the examples of (task, split, part, parts).
    held_out: as in `Job`.
  """

  origin: Origin
  features: tuple[str, ...]
  names: tuple[str, ...]
  vocabulary: Vocabulary | None
  samples: Iterable[str]
  components: Callable[[Path], list[Component]]
  run: Callable
  held_out: frozenset[bytes] = frozenset()


def read_text(config: DataConfig, progress: bool, lock: Callable) -> Text:
  """Finds the text of a task; what is small is read. `lock` lets one process at a time do what is within.

  Raises:
    UserError: if it is not there or not usable, or TensorFlow and seqio are not installed.
  """
  require_tensorflow()
  given = Vocabulary.open(config.vocabulary.path, config.vocabulary.sentinels) if config.vocabulary.path else None
  if config.task in store.HELD_TASKS:
    examples, origin = own_texts.read(config, progress)  # before TensorFlow: what is wrong is told sooner
    samples, features = own_texts.training_texts(examples), own_texts.features(config)
    seqio = import_seqio(progress)
    components = lambda path: [seqio.registered.component(config, path, examples)]  # noqa: E731
    held_out = leaks.keys(example for split in store.SPLITS[1:] for example in examples[split])
    return Text(origin, features, (config.task,), given, samples, components, seqio.tasks.run, held_out)
  seqio = import_seqio(progress)
  if config.task in store.OWN_TASKS:
    with lock():  # TFDS may have to build it first
      source, fields = seqio.sources.checked(config)
    samples, components = seqio.sources.texts(config), lambda path: [seqio.registered.component(config, path)]
    origin = seqio.sources.origin_of(source)
    with bar(progress and config.task == 'local_folder', 'reading what is held out'):
      held_out = leaks.keys(local_folder.held_out(config.local_folder) if config.task == 'local_folder' else ())
    return Text(origin, tuple(fields), (config.task,), given, samples, components, seqio.tasks.run, held_out)
  task = seqio.tasks.find(config.task)
  own = seqio.tasks.vocabulary_of(task)
  if given and Vocabulary.from_bytes(given.model_bytes, own.sentinels).fingerprint != own.fingerprint:
    raise UserError(f'VocabularyConfig.path: expected the vocabulary of the task {config.task}, found another')
  found = seqio.registered.components(task)
  origins = {one.task.name: seqio.sources.origin_of(one.task.source) for one in found}
  return Text(
    _joined(origins), tuple(task.output_features), tuple(origins), own, (), lambda path: found, seqio.tasks.run
  )


def _joined(origins: dict[str, Origin]) -> Origin:
  """The origin of a mixture of these tasks."""
  known = {name: origin.corpus_fingerprint for name, origin in origins.items() if origin.corpus_fingerprint}
  dropped: dict[str, int] = {}
  for origin in origins.values():
    for reason, count in origin.dropped.items():
      dropped[reason] = dropped.get(reason, 0) + count
  return Origin(
    hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest() if known else '',
    {path: digest for origin in origins.values() for path, digest in origin.sources.items()},
    dropped,
    {reason: first for origin in reversed(origins.values()) for reason, first in origin.first_dropped.items()},
  )


def plan(config: DataConfig, text: Text) -> str:
  """A name for all that is known to bear on the result: parts of another plan are not gone on with."""
  what = config_lib.to_dict(_plainly_named(dataclasses.replace(config, directory='-')))
  brought = text.vocabulary.fingerprint if text.vocabulary else ''
  known = [store.FORMAT, what, text.names, dataclasses.asdict(text.origin), brought]
  return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def _plainly_named(config: DataConfig) -> DataConfig:
  """The config with `a/b` for `./a//b` in the names of files."""

  def plain(name: str) -> str:
    return str(place_of(name)) if name else ''

  files = {split: tuple(map(plain, getattr(config.local_files, split))) for split in store.SPLITS}
  return dataclasses.replace(
    config,
    local_files=dataclasses.replace(config.local_files, **files),
    local_folder=dataclasses.replace(config.local_folder, directory=plain(config.local_folder.directory)),
    vocabulary=dataclasses.replace(config.vocabulary, path=plain(config.vocabulary.path)),
  )


def job(config: DataConfig, text: Text, folder: Path, progress: bool) -> Job:
  """What all parts share; the vocabulary is kept in the folder for the processes that go on.

  Raises:
    UserError: if the vocabulary cannot be trained, or the config does not fit the text.
  """
  path, sentinels = folder / store.VOCABULARY, config.vocabulary.sentinels
  if path.exists():
    vocabulary = Vocabulary.open(path, text.vocabulary.sentinels if text.vocabulary else sentinels)
  else:
    vocabulary = text.vocabulary or _trained(config, text.samples, progress)
    aside = path.with_suffix('.partial')
    aside.write_bytes(vocabulary.model_bytes)
    aside.rename(path)
  return Job(folder, config, text.components(path), text.features, text.run, vocabulary, text.origin, text.held_out)


def _trained(config: DataConfig, samples: Iterable[str], progress: bool) -> Vocabulary:
  with bar(progress, f'training a vocabulary of {config.vocabulary.size}'):
    said = []
    trained = train_vocabulary(samples, config.vocabulary.size, config.vocabulary.sentinels, said.append)
  for line in said:  # after the bar, which would write over it
    print(line, file=sys.stderr)
  return trained


def write_vocabulary(config: DataConfig, path: Path, progress: bool) -> None:
  """Trains a vocabulary on one of this library's tasks, in this process, and writes it.

  Raises:
    UserError: if the source cannot be read, or the vocabulary cannot be trained or written.
  """
  if config.task in store.HELD_TASKS:
    samples = own_texts.training_texts(own_texts.read(config, progress)[0])
  else:
    samples = import_seqio(progress).sources.texts(config)
  vocabulary = _trained(config, samples, progress)
  try:
    make_folder(path.parent)
    write_whole(path, vocabulary.model_bytes)
  except OSError as error:
    raise refused(path, 'a file that can be written', error) from error


class Seqio(NamedTuple):
  """The modules that import TensorFlow."""

  registered: types.ModuleType
  sources: types.ModuleType
  tasks: types.ModuleType


def import_seqio(progress: bool) -> Seqio:
  """Imports them, quietly; raises UserError as `require_tensorflow`."""
  require_tensorflow()
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
  with bar(progress and 'tensorflow' not in sys.modules, 'loading TensorFlow'):
    from terraformer.data import registered, sources, tasks
  return Seqio(registered, sources, tasks)


def require_tensorflow() -> None:
  """Raises UserError unless TensorFlow and seqio are installed."""
  if not all(importlib.util.find_spec(name) for name in ('seqio', 'tensorflow')):
    raise UserError("preparing data: expected seqio and TensorFlow, found none; pip install 'terraformer-jax[data]'")
