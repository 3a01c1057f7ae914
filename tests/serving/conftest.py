"""An application without a model, and a process with one."""

import contextlib

import pytest
from starlette.testclient import TestClient

from terraformer.serving.http import make_app
from terraformer.serving.log import Log
from terraformer.serving.service import Service
from terraformer.serving.settings import Settings
from tests.serving.scripted import BUNDLE, Scripted


@pytest.fixture
def make_client(tmp_path):
  """Returns make(scheduler, **settings) -> client of an application; `client.service` is its service."""
  with contextlib.ExitStack() as stack:

    def make(scheduler=None, **settings):
      log = Log('debug', tmp_path / 'log')
      stack.callback(log.close)
      service = Service(
        Settings(**{'name': 'small', 'tasks': ('summarize', 'fix')} | settings), BUNDLE, scheduler or Scripted(), log
      )
      service.is_ready = True
      client = stack.enter_context(TestClient(make_app(service), raise_server_exceptions=False))
      client.service = service
      return client

    yield make


@pytest.fixture
def client(make_client):
  return make_client()
