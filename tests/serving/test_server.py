"""What signals do, and what happens if the model cannot be compiled."""

import signal
import threading
import time
import types

import pytest

from terraformer.serving import server
from tests.serving.scripted import Scripted


@pytest.fixture
def service(client):
  """A service whose scheduler drains when it is told to."""
  scheduler = Scripted()
  scheduler.may_end, scheduler.is_closed = threading.Event(), False
  scheduler.drain = lambda seconds: scheduler.may_end.wait(seconds)
  scheduler.close = lambda: setattr(scheduler, 'is_closed', True)
  client.service.scheduler = scheduler
  client.service.is_ready = False
  return client.service


def begin(service):
  """serve() in a thread, which has no signals; returns its outcome and its server."""
  made, outcome = [], []

  class Server(server._Server):
    def __init__(self, *arguments):
      super().__init__(*arguments)
      made.append(self)

  def run():
    try:
      outcome.append(server.serve(service, server.bind('127.0.0.1', 0)))
    except BaseException as error:
      outcome.append(error)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(server, '_Server', Server)
    thread = threading.Thread(target=run)
    thread.start()
    while not made:
      time.sleep(0.01)
  return thread, made[0], outcome


@pytest.mark.parametrize(('number', 'kind'), [(signal.SIGTERM, type(None)), (signal.SIGINT, KeyboardInterrupt)])
def test_the_first_signal_waits_for_running_texts(service, number, kind):
  thread, running, outcome = begin(service)
  running.handle_exit(number, None)
  running.handle_exit(number, None)  # the same signal, passed on by another program as well
  assert service.is_ending and not running.should_exit
  service.scheduler.may_end.set()
  thread.join(60)
  assert isinstance(outcome[0], kind) and service.scheduler.is_closed


def test_a_second_signal_ends_the_server_at_once(service, monkeypatch):
  clock = types.SimpleNamespace(monotonic=iter([0.0, 1.0, 10.0, 11.5]).__next__)
  monkeypatch.setattr(server, 'time', clock)
  thread, running, outcome = begin(service)
  while not service.is_ready:
    time.sleep(0.01)
  for _ in range(2):
    running.handle_exit(signal.SIGTERM, None)
  thread.join(60)
  assert outcome == [None] and service.scheduler.is_closed and not service.scheduler.may_end.is_set()


def test_a_model_that_cannot_be_compiled_ends_the_server(service):
  service.scheduler.warm_up = lambda: 1 / 0
  thread, _, outcome = begin(service)
  thread.join(60)
  assert isinstance(outcome[0], ZeroDivisionError) and not service.is_ready
