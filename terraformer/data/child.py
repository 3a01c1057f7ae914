"""Prepares in a child process, which imports TensorFlow and the user's own modules, so that this one never does."""

import contextlib
import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from terraformer import config as config_lib
from terraformer import interrupts
from terraformer.config import DataConfig, UserError
from terraformer.data import store
from terraformer.data.prepare import WHOLE, Share, import_tasks, is_prepared, prepare, reuse, train_vocabulary_of
from terraformer.data.store import Manifest
from terraformer.data.vocabulary import Vocabulary


def ensure_prepared(
  config: DataConfig, progress: bool = True, share: Share = WHOLE, modules: Sequence[str] = ()
) -> Manifest | None:
  """Prepares a task if need be, in a child process, so that this one never imports TensorFlow.

  Arguments and result are those of `prepare`; `modules` are names of Python modules that register a user's own tasks.

  Raises:
    UserError: if the task is a user's own and no module is given, a module cannot be imported, or as `prepare` does.
  """
  if is_prepared(config):
    return reuse(config)
  if config.task not in store.OWN_TASKS and not modules:
    raise UserError(
      f'{store.folder_of(config)}: expected the prepared data of {config.task}, found none; prepare it first by '
      '`terraformer prepare --module=MODULE`, with the Python module that registers that seqio task'
    )
  what = {
    'config': config_lib.to_dict(config),
    'progress': progress,
    'share': dataclasses.astuple(share),
    'modules': list(modules),
  }
  _in_child(what, f'preparing {config.task}')
  return store.read_manifest(config) if is_prepared(config) else None


def write_vocabulary(config: DataConfig, path: Path, progress: bool = True) -> Vocabulary:
  """Trains a vocabulary on one of this library's tasks, in a child process, and writes it to `path`.

  Raises:
    UserError: if the task is a user's own, its source cannot be read, or the vocabulary cannot be trained or written.
  """
  if config.task not in store.OWN_TASKS:
    raise UserError(f'DataConfig.task: expected one of {", ".join(store.OWN_TASKS)}, found {config.task!r}')
  what = {'config': config_lib.to_dict(config), 'progress': progress, 'vocabulary': str(path)}
  _in_child(what, f'training a vocabulary on {config.task}')
  return Vocabulary.open(path, config.vocabulary.sentinels)


def _in_child(request: dict[str, Any], what: str) -> None:
  """Does what `_child` is asked for; raises UserError where the child does."""
  # Not multiprocessing: that would import the caller's main module again. A session of its own gets no Ctrl-C from the
  # terminal, so that the child is interrupted exactly once, below, and cleans up.
  environment = {
    'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
    'JAX_PLATFORMS': 'cpu',
    'CUDA_VISIBLE_DEVICES': '',
  }
  with tempfile.TemporaryFile() as noise, os.fdopen(os.dup(2)) as terminal:
    child = subprocess.Popen(
      [sys.executable, '-m', 'terraformer.data.child', str(terminal.fileno())],
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
        answer, _ = child.communicate(json.dumps(request))
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
      raise RuntimeError(f'{what} ended with status {child.returncode}:\n{said}')


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
  config, progress = config_lib.from_dict(request['config']), request['progress']
  try:
    with interrupts.heard():
      if 'vocabulary' in request:
        train_vocabulary_of(config, Path(request['vocabulary']), progress)
      else:
        _import_modules(request['modules'], progress)
        prepare(config, progress, Share(*request['share']))
  except UserError as error:
    print(json.dumps({'error': str(error)}))
    return 2
  except KeyboardInterrupt:
    return 130
  return 0


def _import_modules(names: list[str], progress: bool) -> None:
  if names:
    import_tasks(progress)
  for name in names:
    try:
      importlib.import_module(name)
    except Exception as error:  # whatever the user's code does
      found = f'{type(error).__name__}: {error}'.splitlines()[0]
      raise UserError(f'--module {name}: expected a Python module that can be imported, found {found}') from error


if __name__ == '__main__':
  sys.exit(_child(int(sys.argv[1])))
