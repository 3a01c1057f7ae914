"""Prepares in a child process, which imports TensorFlow and the user's own modules, so that this one never does."""

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
_TO_CLEAN_UP = 10  # seconds that a child has when it is interrupted
_PACKAGE = str(Path(__file__).parents[1])
# Not `-m`: this package is to be the parent's, also where that is the one of the working folder.
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
  """Prepares a task if need be, in a child process, so that this one never imports TensorFlow.

  Arguments and result are those of `prepare`; `modules` are names of Python modules that register a user's own tasks.
  Where they are given, what is prepared already is compared with what they register.

  Raises:
    UserError: if the task is a user's own and no module is given, a module cannot be imported, or as `prepare` does.
    interrupts.Terminated: on SIGTERM and SIGHUP.
  """
  if is_prepared(config) and not modules:
    return reuse(config)
  if config.source.needs_module and not modules:
    raise UserError(
      f'{store.folder_of(config)}: expected the prepared data of {config.task}, found none; prepare it first by '
      '`terraformer prepare --module=MODULE`, with the Python module that registers that seqio task'
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
  """Trains a vocabulary on the text of a source, in a child process, and writes it to `path`.

  Raises:
    UserError: if the source brings a vocabulary, it cannot be read, or the vocabulary cannot be trained or written.
    interrupts.Terminated: on SIGTERM and SIGHUP.
  """
  if config.source.needs_module:
    raise UserError(
      f'task {config.task}: expected a source without a vocabulary, found a seqio task, which brings its own'
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
  """Does what `main` is asked for; raises UserError where the child does."""
  # Not multiprocessing: that would import the caller's main module again. A session of its own gets no Ctrl-C from the
  # terminal, so that the child is interrupted exactly once, below, and cleans up.
  environment = {'JAX_PLATFORMS': 'cpu', 'CUDA_VISIBLE_DEVICES': ''}
  with (
    _scratch() as noise,  # of TensorFlow and of the user's modules
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
        child.stdin.flush()  # it stays open: where this process is killed, the child hears that it is closed
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
  """A file without a name; in memory where the system can, so that a child on a full disk can still say so."""
  if hasattr(os, 'memfd_create'):
    return os.fdopen(os.memfd_create('terraformer'), 'w+b')
  return tempfile.TemporaryFile()


def _import_path() -> list[str]:
  """Where the child finds modules: as this process does, but last in the working folder, whose files may have the names
  of libraries."""
  here = os.path.abspath('')  # noqa: PTH100
  return [*(path for path in sys.path if os.path.abspath(path) != here), here]  # noqa: PTH100


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
  """SIGTERM and SIGHUP raise Terminated, so that no child is left at work."""

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
  """Does what a line of the standard input asks for, and writes the answer; only Python writes to the terminal."""
  # A shell that starts a command in the background has it ignore this, but then this process would not end.
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
  """Prepares, or compares what is prepared with what the user's modules define."""
  is_new = not is_prepared(config)
  manifest = prepare(config, show_progress, share)
  if not is_new and (config.source.needs_module or config_lib.outside_modules(config.source)):
    job.import_seqio(show_progress)
    make_source(config.source).require_unchanged(store.folder_of(config), manifest)


def _end_with_parent() -> None:
  """Interrupts this process, as Ctrl-C does, when the one that asked for it is no more."""
  os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read(), whose lock would be held when Python ends
  os.kill(os.getpid(), signal.SIGINT)


def _import_modules(names: list[str], show_progress: bool) -> None:
  if names:
    job.import_seqio(show_progress)
  import_modules(names)
