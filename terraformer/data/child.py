"""Prepares data in a child process, so that only the child imports TensorFlow and the user's modules."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from terraformer import config as config_lib
from terraformer import interrupts, streams
from terraformer.config import DataConfig, UserError
from terraformer.data import job, store
from terraformer.data.prepare import WHOLE, Share, is_prepared, prepare, reuse
from terraformer.data.source import make_source
from terraformer.data.store import Manifest
from terraformer.data.tokenizer import Tokenizer
from terraformer.modules import import_modules

_INTERRUPTED = 130  # exit status
_TO_CLEAN_UP = 10  # seconds that an interrupted child has to clean up
_PACKAGE = str(Path(__file__).parents[1])
# Not `-m`: the child must import the parent's package, even if the working folder contains another.
_START = """
import sys
terminal, answer, package, *sys.path = sys.argv[1:]
from importlib import util
spec = util.spec_from_file_location('terraformer', f'{package}/__init__.py', submodule_search_locations=[package])
sys.modules['terraformer'] = util.module_from_spec(spec)
spec.loader.exec_module(sys.modules['terraformer'])
from terraformer.data import child
sys.exit(child.main(int(terminal), int(answer)))
"""


def ensure_prepared(
  config: DataConfig, show_progress: bool = True, share: Share = WHOLE, modules: Sequence[str] = ()
) -> Manifest | None:
  """Prepares a task if necessary, in a child process, so that this one never imports TensorFlow.

  The arguments and the result are those of `prepare`. `modules` are the names of Python modules that register the
  user's tasks; if given, data that are already prepared are compared with the registered tasks.

  Raises:
    UserError: if the task is the user's and no module is given, a module cannot be imported, or `prepare` fails.
    interrupts.Terminated: on SIGTERM and SIGHUP.
  """
  if is_prepared(config) and not modules:
    return reuse(config)
  if config.source.needs_module and not modules:
    raise UserError(
      f'{store.folder_of(config)}: {config.task} is not prepared; first run `terraformer prepare --module=MODULE` with '
      'the Python module that registers this seqio task'
    )
  what = {
    'config': config_lib.to_dict(config),
    'progress': show_progress,
    'share': dataclasses.astuple(share),
    'modules': [*modules, *config_lib.outside_modules(config)],
  }
  _in_child(what, f'preparing {config.task}')
  return store.read_manifest(config) if is_prepared(config) else None


def write_vocabulary(config: DataConfig, path: Path, show_progress: bool = True) -> Tokenizer:
  """Trains a vocabulary on the text of a source in a child process and writes it to `path`.

  Raises:
    UserError: if the source has its own vocabulary or cannot be read, or the vocabulary cannot be trained or written.
    interrupts.Terminated: on SIGTERM and SIGHUP.
  """
  if config.source.needs_module:
    raise UserError(
      f'task {config.task}: cannot train a vocabulary for a seqio task, which has its own; use another data source'
    )
  what = {
    'config': config_lib.to_dict(config),
    'progress': show_progress,
    'modules': config_lib.outside_modules(config),
    'vocabulary': str(path),
  }
  _in_child(what, f'training a vocabulary on {config.task}')
  return Tokenizer.open(path, config.tokenizer.sentinels)


def _in_child(request: dict[str, Any], what: str) -> None:
  """Sends a request to `main` in a child process and waits; raises UserError if the child does."""
  # Not multiprocessing, which would import the caller's main module again. In its own session the child gets no Ctrl-C
  # from the terminal, so it is interrupted exactly once, below, and cleans up.
  environment = {'JAX_PLATFORMS': 'cpu', 'CUDA_VISIBLE_DEVICES': ''}
  with (
    _scratch() as noise,  # output of TensorFlow and of the user's modules
    _scratch() as answer,
    os.fdopen(os.dup(2)) as terminal,
  ):
    child = subprocess.Popen(
      [sys.executable, '-P', '-c', _START, str(terminal.fileno()), str(answer.fileno()), _PACKAGE, *_import_path()],
      stdin=subprocess.PIPE,
      stdout=noise,
      stderr=noise,
      pass_fds=[terminal.fileno(), answer.fileno()],
      env=os.environ | environment,
      text=True,
      start_new_session=True,
    )
    try:
      with _terminable(), contextlib.suppress(BrokenPipeError):
        child.stdin.write(json.dumps(request) + '\n')
        child.stdin.flush()  # it stays open: if this process is killed, the child sees it close
        child.wait()
    finally:
      if child.poll() is None:
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
          child.wait(_TO_CLEAN_UP)
        child.kill()
      child.wait()
      with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    if child.returncode == _INTERRUPTED:
      raise KeyboardInterrupt
    answer.seek(0)
    said = json.loads(answer.read() or b'{}')
    if 'error' in said:
      raise UserError(said['error'])
    if said != {'done': True}:
      noise.seek(0)
      heard = noise.read().decode(errors='replace')[-4000:]
      raise RuntimeError(f'{what} ended with status {child.returncode}:\n{heard}')


def _scratch() -> BinaryIO:
  """Returns an unnamed file, in memory if the system allows, so that a child can report a full disk."""
  if hasattr(os, 'memfd_create'):
    return os.fdopen(os.memfd_create('terraformer'), 'w+b')
  return tempfile.TemporaryFile()


def _import_path() -> list[str]:
  """Returns this process's import path with the working folder moved last, since its files may shadow libraries."""
  here = os.path.abspath('')  # noqa: PTH100
  return [*(path for path in sys.path if os.path.abspath(path) != here), here]  # noqa: PTH100


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
  """Makes SIGTERM and SIGHUP raise Terminated, so that no child keeps running."""

  def interrupt(*_):
    raise interrupts.Terminated

  if threading.current_thread() is not threading.main_thread():
    yield
    return
  before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
  heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]  # as under nohup
  for number in heard:
    signal.signal(number, interrupt)
  try:
    yield
  finally:
    for number in heard:
      signal.signal(number, before[number])


def main(terminal: int, answer: int) -> int:
  """Serves the request on standard input and writes the answer; only Python writes to the terminal."""
  # A shell makes background commands ignore SIGINT, but then the parent could not interrupt this process.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  sys.stdout, sys.stderr = streams.messages(1), streams.messages(terminal)
  request = json.loads(sys.stdin.readline())
  threading.Thread(target=_end_with_parent, daemon=True).start()
  show_progress = request['progress']
  said = {'done': True}
  try:
    with interrupts.heard():
      _import_modules(request['modules'], show_progress)
      config = config_lib.from_dict(request['config'])
      if 'vocabulary' in request:
        job.write_vocabulary(config, Path(request['vocabulary']), show_progress)
      else:
        _prepare(config, show_progress, Share(*request['share']))
  except UserError as error:
    said = {'error': str(error)}
  except KeyboardInterrupt:
    return _INTERRUPTED
  with os.fdopen(answer, 'w', encoding='utf-8') as file:
    file.write(json.dumps(said))
  return 0


def _prepare(config: DataConfig, show_progress: bool, share: Share) -> None:
  """Prepares the data, or compares prepared data with the definitions in the user's modules."""
  is_new = not is_prepared(config)
  manifest = prepare(config, show_progress, share)
  if not is_new and (config.source.needs_module or config_lib.outside_modules(config.source)):
    job.import_seqio(show_progress)
    make_source(config.source).require_unchanged(store.folder_of(config), manifest)


def _end_with_parent() -> None:
  """Interrupts this process, as Ctrl-C does, when its parent dies."""
  os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read(), whose lock would be held when Python ends
  os.kill(os.getpid(), signal.SIGINT)


def _import_modules(names: list[str], show_progress: bool) -> None:
  if names:
    job.import_seqio(show_progress)
  import_modules(names)
