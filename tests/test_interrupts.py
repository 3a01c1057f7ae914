"""Ctrl-C at bad moments."""

import signal
import time
import weakref

import pytest

from terraformer import interrupts


@pytest.fixture(autouse=True)
def ctrl_c():
  """The handler of a process that was started in a terminal."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def test_one_that_a_callback_drops_comes_again():
  class Thing:
    pass

  thing = Thing()
  watcher = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
  begun = time.monotonic()
  with pytest.raises(KeyboardInterrupt), interrupts.heard():
    del thing
    assert watcher() is None
    while time.monotonic() < begun + 10:
      time.sleep(0.01)
  assert time.monotonic() < begun + 5


def test_an_error_that_it_led_to_is_an_interruption():
  with pytest.raises(KeyboardInterrupt), interrupts.heard():
    try:
      signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt as error:
      raise ImportError('while initializing the extension') from error


def test_any_other_error_stays_what_it_is():
  with pytest.raises(ImportError), interrupts.heard():
    raise ImportError('no such module')
