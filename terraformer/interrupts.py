"""Makes Ctrl-C end a command reliably, no matter which library is running.

Python raises KeyboardInterrupt anywhere in the main thread. A callback of the garbage collector drops it, and libraries
turn it into their own errors.
"""

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

_AGAIN_SECONDS = 0.05


class Terminated(KeyboardInterrupt):
  """SIGTERM or SIGHUP. Code that handles Ctrl-C handles it too, and can distinguish it by its type."""


@contextlib.contextmanager
def by_signal() -> Iterator[None]:
  """Lets Ctrl-C end the process at once. Use it for imports: extensions fail in their own ways if interrupted there."""
  before = signal.getsignal(signal.SIGINT)
  if not callable(before):  # the parent process has turned interrupts off
    yield
    return
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def heard() -> Iterator[None]:
  """Makes Ctrl-C end the block with KeyboardInterrupt: repeats a dropped one, and replaces an error that it caused."""
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
