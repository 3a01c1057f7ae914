"""Ctrl-C that ends a command whatever library is at work.

Python raises KeyboardInterrupt wherever the main thread happens to be. In a callback of the garbage collector it is
dropped, and libraries turn it into errors of their own.
"""

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

_AGAIN_SECONDS = 0.05


class Terminated(KeyboardInterrupt):
  """SIGTERM or SIGHUP: whoever is hearing Ctrl-C hears it too, and may tell it apart."""


@contextlib.contextmanager
def by_signal() -> Iterator[None]:
  """Ctrl-C ends the process at once, for imports: an extension that is interrupted there fails in a way of its own."""
  before = signal.getsignal(signal.SIGINT)
  if not callable(before):  # whoever started this process does not want it interrupted
    yield
    return
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def heard() -> Iterator[None]:
  """Ctrl-C ends the block in a KeyboardInterrupt: a dropped one comes again, and an error that it led to is one."""
  dropped_before, is_pressed = sys.unraisablehook, False

  def dropped(unraisable):
    nonlocal is_pressed
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
      dropped_before(unraisable)
      return
    is_pressed = True
    threading.Timer(_AGAIN_SECONDS, _thread.interrupt_main).start()

  def pressed(number, frame):
    nonlocal is_pressed
    is_pressed = True
    signal.default_int_handler(number, frame)

  before = signal.getsignal(signal.SIGINT)
  is_ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
  sys.unraisablehook = dropped
  if is_ours:
    signal.signal(signal.SIGINT, pressed)
  try:
    yield
  except Exception as error:
    if is_pressed:
      raise KeyboardInterrupt from error
    raise
  finally:
    sys.unraisablehook = dropped_before
    if is_ours:
      signal.signal(signal.SIGINT, before)
