"""Prepares a task: runs its deterministic part once, through seqio, into a folder that is read without TensorFlow.

The folder appears at once, complete, or not at all: everything is written into a hidden sibling that is renamed at the
end. Preparing again with the same configuration reads the manifest and does nothing.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from terraformer import config as config_lib
from terraformer.config import DataConfig, UserError
from terraformer.data import corpora, local_files, shards, store
from terraformer.data.store import SPLITS, Manifest
from terraformer.data.vocabulary import Vocabulary, train_vocabulary

LONGEST = 65_536  # tokens of a feature that are stored, unless the configuration asks for more


def is_prepared(config: DataConfig) -> bool:
  """Whether the folder of the config's task is prepared, with whatever configuration."""
  return (store.folder_of(config) / store.MANIFEST).exists()


def ensure_prepared(config: DataConfig, progress: bool = True) -> Manifest:
  """Prepares one of this library's tasks if need be, in a child process, so that this one never imports TensorFlow.

  Raises:
    UserError: if the task is a user's own (prepare it by `prepare` where it is registered), or as `prepare` does.
  """
  if is_prepared(config):
    return _reuse(config)
  if config.task not in store.OWN_TASKS:
    raise UserError(
      f'{store.folder_of(config)}: expected the prepared data of {config.task}, found none; prepare it first where '
      'that seqio task is registered'
    )
  # Not multiprocessing: that would import the caller's main module again. A session of its own gets no Ctrl-C from the
  # terminal, so that the child is interrupted exactly once, below, and cleans up.
  environment = {
    'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
    'JAX_PLATFORMS': 'cpu',
    'CUDA_VISIBLE_DEVICES': '',
  }
  with tempfile.TemporaryFile() as noise, os.fdopen(os.dup(2)) as terminal:
    child = subprocess.Popen(
      [sys.executable, '-m', 'terraformer.data.prepare', str(terminal.fileno())],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=noise,
      pass_fds=[terminal.fileno()],
      env=os.environ | environment,
      text=True,
      start_new_session=True,
    )
    try:
      with _terminable():
        answer, _ = child.communicate(json.dumps({'config': config_lib.to_dict(config), 'progress': progress}))
    finally:
      if child.poll() is None:
        child.send_signal(signal.SIGINT)
        try:
          child.wait(20)
        finally:
          child.kill()
    if child.returncode == 2:
      raise UserError(json.loads(answer.splitlines()[-1])['error'])
    if child.returncode:
      noise.seek(0)
      said = noise.read().decode(errors='replace')[-4000:]
      raise RuntimeError(f'preparing {config.task} ended with status {child.returncode}:\n{said}')
  return store.read_manifest(config)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
  """SIGTERM raises KeyboardInterrupt, as Ctrl-C does, so that no child is left at work."""

  def interrupt(*_):
    raise KeyboardInterrupt

  if threading.current_thread() is not threading.main_thread():
    yield
    return
  previous = signal.signal(signal.SIGTERM, interrupt)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, previous)


def _child(terminal: int) -> int:
  """Prepares what standard input asks for; only Python writes to the terminal, TensorFlow's own messages do not."""
  sys.stderr = os.fdopen(terminal, 'w', buffering=1)
  request = json.loads(sys.stdin.read())
  try:
    prepare(config_lib.from_dict(request['config']), request['progress'])
  except UserError as error:
    print(json.dumps({'error': str(error)}))
    return 2
  except KeyboardInterrupt:
    return 130
  return 0


def prepare(config: DataConfig, progress: bool = True) -> Manifest:
  """Prepares a task into `config.directory/config.task` and returns its manifest.

  A task of this library is read from its source and gets the vocabulary of the config, trained on its own training text
  if `vocabulary.path` is empty. Any other seqio task or mixture must be registered in this process and brings its own.
  A task with `targets` alone is cut into windows of `inputs_length + targets_length` tokens of running text.

  Raises:
    UserError: if the folder holds something else or data of another configuration, the source or the vocabulary is not
      usable, or TensorFlow and seqio are not installed.
  """
  folder = store.folder_of(config)
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
      if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        return _reuse(config)
      with _new_folder(folder) as partial:
        return _prepare_into(partial, config, progress)
  except (PermissionError, NotADirectoryError, FileExistsError) as error:
    raise UserError(f'{folder}: expected a folder that can be written, found {error.strerror.lower()}') from error


def _reuse(config: DataConfig) -> Manifest:
  """The manifest of what is there, if the files that it was made from are as they were."""
  manifest, folder = store.read_manifest(config), store.folder_of(config)
  for name, digest in manifest.sources.items():
    if Path(name).exists() and store.sha256_of(Path(name)) != digest:
      raise UserError(f'{folder}: expected {name} as it was prepared, found it changed; remove the folder to go on')
  path = config.vocabulary.path
  if path and Path(path).exists():
    found = Vocabulary.open(path, manifest.sentinels).fingerprint
    if found != manifest.vocabulary_fingerprint:
      raise UserError(f'{folder}: expected {path} as it was prepared, found it changed; remove the folder to go on')
  return manifest


def _prepare_into(folder: Path, config: DataConfig, progress: bool) -> Manifest:
  if not all(importlib.util.find_spec(name) for name in ('seqio', 'tensorflow')):
    raise UserError("preparing data: expected seqio and TensorFlow, found none; pip install 'terraformer-jax[data]'")
  facts: dict[str, Any] = {'corpus_fingerprint': '', 'sources': {}, 'dropped': {}}
  path = folder / store.VOCABULARY
  if config.task in store.OWN_TASKS:
    examples = _read_own(config, facts, progress)
    vocabulary = _vocabulary(config, examples['train'], progress)
    path.write_bytes(vocabulary.model_bytes)
    tasks = _import_tasks(progress)
    task = tasks.register(config, path, examples)
  else:
    tasks = _import_tasks(progress)
    task = tasks.find(config.task)
    vocabulary = tasks.vocabulary_of(task)
    if config.vocabulary.path:
      given = Vocabulary.open(config.vocabulary.path, vocabulary.sentinels)
      if given.fingerprint != vocabulary.fingerprint:
        raise UserError(f'VocabularyConfig.path: expected the vocabulary of the task {config.task}, found another')
    path.write_bytes(vocabulary.model_bytes)
  return _write(folder, config, task, tasks.run, vocabulary, facts, progress)


def _import_tasks(progress: bool):
  """The module that imports TensorFlow, after all that can be wrong without it, and quietly."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
  with _bar(progress, 'loading TensorFlow'):
    from terraformer.data import tasks
  return tasks


def _read_own(config: DataConfig, facts: dict[str, Any], progress: bool) -> corpora.Examples:
  """The examples of one of this library's tasks; what is to be known of them goes into `facts`."""
  if config.task == 'local_files':
    paths = local_files.source_paths(config.local_files)
    examples = local_files.local_files(config.local_files)
    facts['sources'] = {str(path): store.sha256_of(path) for found in paths.values() for path in found}
    facts['corpus_fingerprint'] = hashlib.sha256(json.dumps(examples, sort_keys=True).encode()).hexdigest()
    return examples
  with _bar(progress, 'mining docstrings', 'file') as bar:
    corpus = corpora.mine(
      progress=lambda done, total: bar.reset(total) if bar.total != total else bar.update(done - bar.n)
    )
  facts['corpus_fingerprint'], facts['dropped'] = corpus.fingerprint, dict(corpus.dropped)
  read = corpus.pairs if config.task == 'docstring_summarization' else corpus.texts
  return {split: read(split) for split in SPLITS}


def _vocabulary(config: DataConfig, examples: list[dict[str, str]], progress: bool) -> Vocabulary:
  wanted = config.vocabulary
  if wanted.path:
    return Vocabulary.open(wanted.path, wanted.sentinels)
  with _bar(progress, f'training a vocabulary of {wanted.size}'):
    return train_vocabulary(['\n'.join(example.values()) for example in examples], wanted.size, wanted.sentinels)


def _write(folder: Path, config: DataConfig, task, run, vocabulary: Vocabulary, facts, progress: bool) -> Manifest:
  features = sorted(task.output_features)
  is_text = 'inputs' not in features
  longest = max(LONGEST, config.inputs_length, config.targets_length)
  dropped = facts['dropped'] | {'empty': 0, 'features cut': 0}
  tally = shards.Tally(vocabulary.size, vocabulary.fingerprint)
  writers = {split: shards.SplitWriter(folder, split) for split in SPLITS}

  def examples_of(split: str) -> Iterator[tuple[dict[str, np.ndarray], dict[str, str]]]:
    total = None if hasattr(task, 'tasks') else task.num_input_examples(split)  # of a mixture nobody knows
    for example in _bar(progress, f'tokenising {split}', 'example', run(task, split), total):
      if not all(len(ids) for ids in example.tokens.values()):
        dropped['empty'] += 1
        continue
      dropped['features cut'] += sum(len(ids) > longest for ids in example.tokens.values()) * (not is_text)
      tokens = example.tokens if is_text else {name: ids[:longest] for name, ids in example.tokens.items()}
      yield tokens, {} if split == 'train' or is_text else example.texts

  for split in SPLITS:
    if split in task.splits:
      examples = examples_of(split)
      if is_text:
        cut = shards.windows(
          (tokens['targets'] for tokens, _ in examples), config.window_length, config.text_objective.separates
        )
        examples = (({'targets': window}, {}) for window in cut)
      if split == 'train' and config.max_examples:
        examples = shards.evenly(examples, config.max_examples)
      for tokens, texts in examples:
        record = store.pack(tokens, texts)
        writers[split].add(record, tokens)
        tally.add(split, record)
        if split == 'train':
          tally.count(tokens['targets'], is_text)
    writers[split].close()
  if not writers['train'].examples:
    raise UserError(f'task {config.task}: expected training examples, found none')
  np.save(folder / store.UNIGRAMS, tally.unigram_counts)
  manifest = Manifest(
    config=config,
    features=features,
    examples={split: writer.examples for split, writer in writers.items()},
    tokens={split: writer.tokens for split, writer in writers.items()},
    shards={split: writer.shards for split, writer in writers.items()},
    vocabulary_size=vocabulary.size,
    sentinels=vocabulary.sentinels,
    vocabulary_fingerprint=vocabulary.fingerprint,
    corpus_fingerprint=facts['corpus_fingerprint'],
    sources=facts['sources'],
    longest=longest,
    dropped=dropped,
    fingerprint=tally.fingerprint,
  )
  manifest.write(folder)
  return manifest


def _bar(progress: bool, what: str, unit: str = 'step', items=None, total: int | None = None) -> tqdm:
  return tqdm(
    items,
    desc=what,
    unit=unit,
    total=total,
    disable=not progress,
    bar_format='{desc} [{elapsed}]' if unit == 'step' else None,
    mininterval=0.2 if sys.stderr.isatty() else 10,
  )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
  """Lets one process at a time prepare a folder; the others wait and then find it prepared."""
  with (folder.parent / f'.{folder.name}.lock').open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
  """A hidden sibling that takes the folder's name if all goes well; what a killed process left is removed first."""
  prefix = f'.{folder.name}.partial-'
  for left in folder.parent.glob(f'{prefix}*'):
    shutil.rmtree(left, ignore_errors=True)
  partial = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
  try:
    yield partial
    partial.chmod(0o777 & ~_umask())
    partial.rename(folder)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _umask() -> int:
  mask = os.umask(0)
  os.umask(mask)
  return mask


if __name__ == '__main__':
  sys.exit(_child(int(sys.argv[1])))
